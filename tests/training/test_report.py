"""`train.py report`: what a run came to, and how it differs from another one."""

from __future__ import annotations

from pathlib import Path

import pytest

import minivit
import train
from minivit.training.report import run_text
from minivit.training.run_folder import RunFolder, write_text
from minivit.training.task import Epoch

REPORT = """# small

- 40 validation photos: 90.0 % right
- 2 min 3 s in all, 160 training samples

![curves](curves.png)

- 200 photos

The rest is about the validation photos.

![confusions](confusion.png)

## Most confused
"""


def make_run(path: Path, *, accuracy: float, lr: float, dim: int, finished: bool = True) -> Path:
    folder = RunFolder(path)
    epochs = [Epoch(1, lr, 2.0, 1.0, accuracy, 60.0), Epoch(2, 0.0, 1.5, 0.75, accuracy, 123.0)]
    folder.write_metrics(epochs)
    text = f'task = "classify"\nrecipe = "small"\nepochs = 2\nbatch_size = 4\nlr = {lr}\n'
    write_text(folder.recipe, text)
    size = {"dim": dim, "hidden_dim": 2 * dim}
    config = minivit.ViTConfig.from_name("debug_patch8_32", **size)
    minivit.save_model(minivit.VisionTransformer(config), folder.last)
    if finished:
        folder.finish(REPORT)
    return path


def test_a_report_is_printed_without_its_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", accuracy=0.9, lr=0.1, dim=32)
    assert train.main(["report", str(run)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in REPORT.splitlines() if line and not line.startswith("![")]
    assert [line for line in text.splitlines() if line] == lines
    assert "\n\n\n" not in text


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a", accuracy=0.5, lr=0.1, dim=32)
    other = make_run(tmp_path / "b", accuracy=0.75, lr=0.01, dim=64)
    recipe = RunFolder(other).recipe
    write_text(recipe, recipe.read_text() + "workers = 5\nwarmup = 0.25\n")  # of before its name
    assert train.main(["report", str(run), str(other)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# small\n") and f"\n## {run} and {other}\n" in text
    first, second = (line for line in text.splitlines() if line.startswith(f"| {tmp_path}"))
    assert " 75.00 % |" in first and " 50.00 % |" in second and "| 2 min 03 s |" in first
    for line, path in ((first, other), (second, run)):
        model = minivit.load_model(path / "last.safetensors")
        assert f" {sum(each.numel() for each in model.parameters()):,} |" in line
    _, _, settings = text.partition("Settings that differ:\n\n")
    assert settings == "- lr: 0.1 and 0.01\n- warmup_share: 0.0 and 0.25\n"
    assert run_text(run, run).endswith("\nThe settings are the same.\n")


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", accuracy=0.5, lr=0.1, dim=32, finished=False)
    text = run_text(run)
    assert "- no report yet; epochs that are done: 2\n" in text and "50.0 % right" in text
    assert text.endswith(f"This run is unfinished: --resume --out {run} goes on with it.\n")
    (run / "metrics.csv").unlink()
    assert "epochs that are done: 0\n" in run_text(run)
    folder = RunFolder(run)
    folder.save_state({})
    folder.write_report(REPORT)  # of a run that Ctrl-C stopped
    assert "90.0 % right" in run_text(run) and "This run is unfinished" in run_text(run)


def test_what_is_no_run_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", accuracy=0.5, lr=0.1, dim=32)
    for words in (["report", str(tmp_path)], ["report", str(run), str(tmp_path / "nowhere")]):
        assert train.main(words) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"error: {words[-1]}: no run folder") and errors.count("\n") == 1
