"""The training command, run as a person runs it: small, on the built-in scenes."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import minivit
import train as command
from minivit.data.scenes import CLASS_NAMES

ROOT = Path(command.__file__).parent
SMALL = ["--limit", "96", "--epochs", "2", "--workers", "0"]


@pytest.fixture(autouse=True)
def few_scenes_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NUM_HELD_OUT", 60)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "NUM_HELD_OUT", 60)
        assert command.main([*SMALL, "--out", str(out)]) == 0
    return out


def test_a_run_leaves_everything_that_was_promised(run_folder: Path) -> None:
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "attention.png",
        "best.safetensors",
        "curves.png",
        "last.safetensors",
        "metrics.csv",
        "recipe.toml",
        "report.md",
    ]
    with (run_folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[1]["val_accuracy"]) <= 1
    recipe = (run_folder / "recipe.toml").read_text()
    assert 'recipe = "scenes"\n' in recipe and "epochs = 2\n" in recipe
    report = (run_folder / "report.md").read_text()
    assert "linear probe on raw pixels" in report and "easy test scenes" in report
    for name in ("attention.png", "curves.png"):
        with Image.open(run_folder / name) as image:
            assert min(image.size) > 300


def test_the_checkpoint_knows_its_classes_and_its_preprocessing(run_folder: Path) -> None:
    model = minivit.load_model(run_folder / "best.safetensors")
    assert model.labels == CLASS_NAMES
    photo = Image.new("RGB", (90, 60), "red")
    assert model(model.preprocess(photo)[None]).shape == (1, 48)


def test_the_same_seed_trains_the_same_weights(run_folder: Path, tmp_path: Path) -> None:
    for seed, same in (("0", True), ("1", False)):
        out = tmp_path / seed
        assert command.main(["classify", *SMALL, "--seed", seed, "--out", str(out)]) == 0
        first, second = (
            minivit.load_model(folder / "last.safetensors").state_dict()
            for folder in (run_folder, out)
        )
        assert all(torch.equal(first[name], second[name]) for name in first) is same


def test_evaluate_prints_the_same_number_always(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(run_folder / "best.safetensors")
    for _ in range(2):
        assert command.main(["evaluate", "--weights", weights, "--workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    assert lines[0].startswith("60 full test scenes: ") and lines[0].endswith(" % right")
    assert lines[1].startswith("60 easy test scenes: ")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    assert command.main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line]
    assert "Traceback" not in "".join(errors)
    return errors[-1]


def test_bad_input_is_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lr is -1.0" in refused(["--lr=-1", "--out", str(tmp_path / "a")], capsys)
    assert "epochs is 0" in refused(["--epochs", "0", "--out", str(tmp_path / "a")], capsys)
    assert not (tmp_path / "a").exists()
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    assert "file" in refused([*SMALL, "--out", str(blocked / "run")], capsys)
    assert blocked.read_text() == "kept"
    missing = str(tmp_path / "missing.safetensors")
    assert missing in refused(["evaluate", "--weights", missing], capsys)
    other = tmp_path / "other.safetensors"
    minivit.save_model(
        minivit.VisionTransformer(minivit.ViTConfig.from_name("debug_patch8_32")), other
    )
    assert "other classes than the 48" in refused(["evaluate", "--weights", str(other)], capsys)


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--nonsense"], ["--data", "nowhere"]])
def test_wrong_flags_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, train\ntry: train.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_ends_with_130_and_keeps_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "train.py", "--limit", "96", "--epochs", "1000", "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (out / "best.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert "Traceback" not in errors
    minivit.load_model(out / "best.safetensors")
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
