"""The training command, run as a person runs it: small, on scenes and on made-up photos."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import minivit
import train as command
from minivit.data.scenes.dataset import CLASS_NAMES
from minivit.explain import position_scores, position_similarity
from minivit.training import record
from minivit.training.caption import plan as caption_plan
from minivit.training.classify import evaluate, report
from minivit.training.classify import plan as classify_plan
from tests.training.photo_runs import make_photos, make_recipe_file

ROOT = Path(command.__file__).parent
SMALL = ["--limit", "96", "--epochs", "2", "--workers", "0"]
FILES = {
    "best.safetensors",
    "curves.png",
    "environment.toml",
    "last.safetensors",
    "metrics.csv",
    "minivit-run.json",
    "recipe.toml",
    "report.md",
}


@pytest.fixture(autouse=True, scope="module")
def few_scenes_are_held_out() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for module in (classify_plan, caption_plan, evaluate):
            patch.setattr(module, "NUM_HELD_OUT", 60)
        yield


def status(*words: object) -> int:
    return command.main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert status(*words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    return errors[0]


def same_weights(first: Path, second: Path) -> bool:
    one, other = (minivit.load_model(path).state_dict() for path in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- scenes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    assert status(*SMALL, "--out", out) == 0
    return out


def test_a_run_leaves_everything_that_was_promised(scenes_run: Path) -> None:
    found = {path.name for path in scenes_run.iterdir()} - {"tensorboard"}
    assert found == FILES | {"attention.png", "positions.png"}
    with (scenes_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[1]["val_accuracy"]) <= 1
    recipe = (scenes_run / "recipe.toml").read_text()
    assert 'recipe = "scenes"\n' in recipe and "epochs = 2\n" in recipe
    report = (scenes_run / "report.md").read_text()
    assert "linear probe on raw pixels" in report and "easy test scenes" in report
    model = minivit.load_model(scenes_run / "best.safetensors")
    scores = position_scores(position_similarity(model))
    assert f"- position embeddings: {scores}\n" in report
    for name in re.findall(r"\]\((\w+\.png)\)", report):
        with Image.open(scenes_run / name) as image:
            assert min(image.size) > 300


def test_the_checkpoint_knows_its_classes_and_its_preprocessing(scenes_run: Path) -> None:
    model = minivit.load_model(scenes_run / "best.safetensors")
    assert model.labels == CLASS_NAMES
    photo = Image.new("RGB", (90, 60), "red")
    assert model(model.preprocess(photo)[None]).shape == (1, 48)


def test_the_saved_recipe_repeats_the_run(scenes_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert status("--recipe", scenes_run / "recipe.toml", "--out", again) == 0
    assert same_weights(scenes_run / "last.safetensors", again / "last.safetensors")
    assert (again / "recipe.toml").read_text() == (scenes_run / "recipe.toml").read_text()
    other = tmp_path / "other"
    words = ("--recipe", scenes_run / "recipe.toml", "--seed", 1, "--out", other)
    assert status(*words) == 0
    assert not same_weights(scenes_run / "last.safetensors", other / "last.safetensors")


def test_a_run_is_not_replaced_unasked(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (scenes_run / "best.safetensors").read_bytes()
    said = refused(capsys, *SMALL, "--out", scenes_run)
    assert "holds a finished run" in said and "--overwrite" in said
    assert (scenes_run / "best.safetensors").read_bytes() == before
    out = tmp_path / "run"
    for words in ([], ["--overwrite"]):
        assert status(*SMALL, "--limit", 32, "--out", out, *words) == 0


def test_evaluate_prints_the_same_number_always(
    scenes_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert status("evaluate", "--weights", scenes_run / "best.safetensors", "--workers", 0) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    assert re.match(r"60 full test scenes: \d+\.\d\d % right", lines[0])
    assert lines[1].startswith("60 easy test scenes: ")


def test_a_captioner_learns_by_the_same_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    assert status("caption", *SMALL, "--out", out) == 0
    assert {path.name for path in out.iterdir()} - {"tensorboard"} == FILES
    printed = capsys.readouterr().out
    assert "96 scenes, 8 captions each" in printed and "of attribute words right" in printed
    assert "pointing, shape words" in (out / "report.md").read_text()
    text = (
        minivit.load_model(out / "best.safetensors").caption([Image.new("RGB", (64, 64))])[0].text
    )
    assert isinstance(text, str)
    said = refused(capsys, "caption", "--recipe", "scenes", "--out", tmp_path / "x")
    assert "a recipe for 'classify', this command is 'caption'" in said


# ---- photos --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "things")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe_file(tmp_path_factory.mktemp("recipes") / "small.toml", "seed = 7\n")


@pytest.fixture(scope="module")
def photo_run(photos: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "photos"
    words = ("classify", "--data", photos, "--recipe", recipe, "--out", out, "--epochs", 12)
    assert status(*words) == 0
    return out


def test_photos_are_learned_and_reported(photo_run: Path) -> None:
    found = {path.name for path in photo_run.iterdir()} - {"tensorboard"}
    assert FILES | {"confusion.png"} <= found <= FILES | {"confusion.png", "mistakes.png"}
    report = (photo_run / "report.md").read_text()
    accuracy = re.search(r"15 validation photos: ([\d.]+) % right", report)
    assert accuracy and float(accuracy[1]) > 60  # chance is 33
    assert "one folder a class: 57 photos of 3 classes" in report
    assert "RandomResizedCrop" in report and "seed 7" in report
    for name in re.findall(r"\]\((\w+\.png)\)", report):
        assert (photo_run / name).exists()
    assert minivit.load_model(photo_run / "best.safetensors").labels == (
        "blue",
        "green",
        "red things",
    )


def test_evaluate_says_how_good_and_writes_answers(
    photo_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, answers = photo_run / "best.safetensors", tmp_path / "out.csv"
    capsys.readouterr()
    words = ("evaluate", "--data", photos, "--weights", weights, "--predictions", answers)
    assert status(*words, "--batch-size", 4) == 0
    first = capsys.readouterr().out
    assert re.search(r"15 photos: [\d.]+ % right \(chance 33.3 %\)", first)
    assert "expected calibration error" in first and "photos a second" in first
    assert re.search(r"  red things +[\d.]+ % of 5", first)
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["filename", "label"] and len(rows) == 15
    assert {row["label"] for row in rows} <= {"blue", "green", "red things"}
    right = sum(row["filename"].startswith(row["label"] + "/") for row in rows)
    assert f"15 photos: {100 * right / 15:.2f} % right" in first
    assert status(*words, "--workers", 0, "--batch-size", 15) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[1] == first.splitlines()[1]


def test_a_flat_folder_has_answers_and_no_accuracy(
    photo_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any names; the photo that cannot be read is named, the others have their rows."""
    folder, answers = tmp_path / "new", tmp_path / "out.csv"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "whatever, it is.png")
    Image.new("L", (1, 1)).save(folder / "tiny.png")
    weights = photo_run / "best.safetensors"
    said = refused(capsys, "evaluate", "--data", folder, "--weights", weights)
    assert "without labels" in said and "--predictions" in said
    words = ("evaluate", "--data", folder, "--weights", weights, "--predictions", answers)
    assert status(*words) == 0
    (folder / "tiny.png").rename(folder / "tiny")  # the content decides
    (folder / "broken.jpg").write_bytes(b"no photo")
    assert "broken.jpg" in refused(capsys, *words)
    with answers.open(newline="") as file:
        rows = [row["filename"] for row in csv.DictReader(file)]
    assert sorted(rows) == ["tiny", "whatever, it is.png"]
    assert "broken.jpg" in refused(capsys, *words, "--strict")
    (folder / "broken.jpg").rename(folder / "IMG_1.HEIC")
    said = refused(capsys, *words)
    assert "IMG_1.HEIC: not a picture that Pillow can read here; save it as JPEG or PNG" in said


def test_fine_tuning_makes_a_new_head_and_says_so(
    scenes_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a checkpoint of other classes and another picture size; from one of the same."""
    out = tmp_path / "run"
    words = ("classify", "--data", photos, "--weights", scenes_run / "best.safetensors")
    more = ("--set", "image_size=96", "--epochs", 1, "--limit", 9, "--workers", 0)
    assert status(*words, *more, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "its head is for other classes (48 of them): made anew" in printed
    assert "position embeddings resized from 8x8 to 12x12 patches" in printed
    model = minivit.load_model(out / "best.safetensors")
    assert model.config.image_size == model.preprocess.image_size == (96, 96)
    assert 'recipe = "pets_sgd"' in (out / "recipe.toml").read_text()
    words = ("classify", "--data", photos, "--weights", out / "last.safetensors")
    assert status(*words, "--epochs", 1, "--set", "image_size=0", "--limit", 9, "--workers", 0,
                  "--lr", 1e-12, "--out", tmp_path / "second") == 0  # fmt: skip
    assert "made anew" not in capsys.readouterr().out
    before, after = (
        minivit.load_model(run / "last.safetensors").head.weight
        for run in (out, tmp_path / "second")
    )
    torch.testing.assert_close(before, after)


def test_classes_are_called_what_a_file_says(
    photos: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the checkpoint, so in every title; in the report, and where the model is measured."""
    names, out = tmp_path / "names.json", tmp_path / "run"
    names.write_text('{"blue": "Samoyed", "green": "Pug", "red things": "Beagle"}')
    words = ("classify", "--data", photos, "--recipe", recipe, "--epochs", 1, "--workers", 0)
    assert status(*words, "--labels", names, "--out", out) == 0
    assert "; names of classes: names.json\n" in capsys.readouterr().out
    weights = out / "best.safetensors"
    model = minivit.load_model(weights, expected=minivit.VisionTransformer)
    assert model.labels == ("Samoyed", "Pug", "Beagle")
    assert model.data_labels == ("blue", "green", "red things")
    report = (out / "report.md").read_text()
    assert re.search(r"^\| Samoyed +\|", report, re.MULTILINE) and "green" not in report
    words = ("evaluate", "--data", photos, "--weights", weights, "--workers", 0)
    table = tmp_path / "out.csv"
    for more, choices in (
        ([], {"blue", "green", "red things"}),  # whoever labelled the photos so reads it
        (["--labels", names], {"Samoyed", "Pug", "Beagle"}),
    ):
        assert status(*words, "--predictions", table, *more) == 0
        with table.open(newline="") as file:
            assert {row["label"] for row in csv.DictReader(file)} <= choices
    measured = capsys.readouterr().out
    (photos / "classes.json").write_text(names.read_text())
    try:
        assert status(*words) == 0
    finally:
        (photos / "classes.json").unlink()
    again = capsys.readouterr().out
    for text in (measured, again):
        assert re.search(r"  Samoyed +[\d.]+ % of 5", text)
    assert "classes of scenes are known" in refused(capsys, "--labels", names)


def test_preview_shows_what_training_sees(photos: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    words = ("preview", "--data", photos, "--recipe", recipe, "--photos", 3, "--out", out)
    assert status(*words) == 0
    with Image.open(out) as sheet:
        assert min(sheet.size) > 200


def test_a_preview_needs_neither_recipe_nor_weights(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert status("preview", "--data", photos, "--photos", 1, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "RandomRotation(degrees=15.0" in printed  # as recipe pets_sgd says
    assert out.exists()


def test_a_sweep_compares(
    photos: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that diverges is a result too; with --resume nothing is trained twice."""
    out = tmp_path / "sweep"
    words = ("sweep", "--data", photos, "--recipe", recipe, "--epochs", 1, "--workers", 0,
             "--vary", "lr=1e-3,1e9", "--set", "optimizer=sgd", "--out", out)  # fmt: skip
    assert status(*words) == 0
    table = (out / "comparison.md").read_text()
    assert "| lr=0.001 " in table and "lr=1000000000.0 (the " in table
    assert (out / "lr=0.001" / "report.md").exists() and (out / "comparison.png").exists()
    before = (out / "lr=0.001" / "best.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert status(*words, "--resume") == 0
    assert (out / "lr=0.001" / "best.safetensors").stat().st_mtime_ns == before
    assert (out / "comparison.md").read_text() == table
    assert "one run is no comparison" in refused(capsys, "sweep", "--recipe", recipe)


def test_every_figure_of_a_run_names_the_run(
    photos: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: dict[str, str] = {}

    def record_words(figure: Figure, path: Path) -> None:
        texts[path.name] = "\n".join(text.get_text() for text in figure.findobj(Text))

    for module in (record, report):
        monkeypatch.setattr(module, "save_figure", record_words)
    short = ("--epochs", 1, "--limit", 9, "--workers", 0)
    assert status(*short, "--out", tmp_path / "round scenes") == 0
    assert set(texts) == {"curves.png", "attention.png", "positions.png"}
    assert "run: round scenes" in texts["curves.png"]
    for name in ("attention.png", "positions.png"):
        assert "weights: round scenes/best.safetensors" in texts[name]
    texts.clear()
    monkeypatch.setattr(report, "most_confidently_wrong", lambda *_: [0])  # or none, by chance
    words = ("--data", photos, "--recipe", recipe, *short)
    assert status("classify", *words, "--out", tmp_path / "things") == 0
    assert set(texts) == {"curves.png", "confusion.png", "mistakes.png"}
    assert "run: things" in texts["curves.png"]
    for name in ("confusion.png", "mistakes.png"):
        assert "validation photos; weights: things/best.safetensors" in texts[name]


# ---- what may go wrong ---------------------------------------------------------------------------


def test_bad_input_is_one_line(
    scenes_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    assert "lr is -1.0" in refused(capsys, "--lr=-1", "--out", out)
    assert "epochs is 0" in refused(capsys, "--epochs", 0, "--out", out)
    assert "did you mean weight_decay?" in refused(capsys, "--set", "weight_dacay=1")
    assert "no such recipe" in refused(capsys, "--recipe", "nonsense")
    said = refused(capsys, "classify", "--data", tmp_path / "nowhere", "--recipe", "pets_sgd")
    assert "nowhere: no such file or folder" in said
    assert "give --weights W to fine-tune" in refused(capsys, "classify", "--data", photos)
    missing = tmp_path / "missing.safetensors"
    assert str(missing) in refused(capsys, "evaluate", "--weights", missing)
    assert str(missing) in refused(
        capsys, "classify", "--data", photos, "--weights", missing, "--out", out
    )
    assert str(missing) in refused(
        capsys, "classify", "--data", tmp_path, "--weights", missing, "--out", out
    )  # before the photos are looked at
    assert "give --weights W" in refused(capsys, "--set", f"data={photos}")
    assert not out.exists()
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    assert "file" in refused(capsys, *SMALL, "--out", blocked / "run")
    assert blocked.read_text() == "kept"
    other = tmp_path / "other.safetensors"
    config = minivit.ViTConfig.from_name("debug_patch8_32")
    minivit.save_model(minivit.VisionTransformer(config), other)
    assert "other classes than the 48" in refused(capsys, "evaluate", "--weights", other)
    said = refused(capsys, "evaluate", "--data", photos, "--weights", other)
    assert "name no classes" in said and "the data's 3 classes (blue, green, red things)" in said
    named = ("evaluate", "--data", photos, "--weights", other, "--labels", "numbers")
    said = refused(capsys, *named)
    assert "3 of 3 classes not known to the model: 'blue', 'green', 'red things'" in said
    said = refused(capsys, "evaluate", "--weights", other, "--labels", "numbers")
    assert "--labels is for photos" in said


@pytest.mark.parametrize("command", ["evaluate --weights w", "preview", "sweep"])
def test_what_is_one_process_says_so_to_torchrun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    name, *flags = command.split()
    assert f"{name} is one process: start it without torchrun" in refused(capsys, name, *flags)


def test_a_run_that_diverges_says_what_is_left(
    photos: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With SGD at an impossible rate: the first epoch's checkpoint is named and stays."""
    out = tmp_path / "run"
    good = ("classify", "--data", photos, "--recipe", recipe, "--workers", 0, "--out", out)
    phases = make_recipe_file(
        tmp_path / "phases.toml",
        "[[phases]]\nepochs = 1\n[[phases]]\noptimizer = 'sgd'\nlr = 1e12\nwarmup_share = 0.0\n",
    )
    said = refused(capsys, *good, "--recipe", phases)
    assert re.search(r"is (nan|inf) at step \d+ of \d+ with learning rate [\d.e+]+", said)
    assert f"the last good checkpoint is {out / 'last.safetensors'}" in said
    weights = minivit.load_model(out / "last.safetensors").state_dict()
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "0"], ["--nonsense"], ["--workers", "-1"], ["evaluate"], ["--precision", "fp8"]],
)
def test_wrong_flags_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2


def test_old_names_of_keys_are_one_line_each_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "old.toml"
    recipe.write_text((ROOT / "minivit/training/recipes/scenes.toml").read_text() + "ema = 0.5\n")
    words = ("--recipe", recipe, "--set", "clip=-1", "--set", "warmup=0.5")
    assert status(*words, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.splitlines() == ["error: grad_clip is -1.0, expected at least 0"]
    small = ("--limit", 8, "--epochs", 1, "--workers", 0, "--out", tmp_path / "run")
    assert status(*words[:2], "--set", "warmup=0.5", *small) == 0
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("warning: ")] == [
        f"warning: {recipe}: ema is called ema_decay now",
        "warning: the command line: warmup is called warmup_share now",
    ]
    text = (tmp_path / "run" / "recipe.toml").read_text()
    assert "ema_decay = 0.5\n" in text and "warmup_share = 0.5\n" in text


def test_recipes_and_their_keys_are_listed_without_torch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status("recipes") == 0
    assert "  fashion_mnist        Fashion-MNIST from scratch\n" in capsys.readouterr().out
    assert status("recipes", "--keys") == 0
    assert "warmup_share" in capsys.readouterr().out
    code = "import sys, train; train.main(['keys']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, train\ntry: train.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_ends_with_130_and_keeps_what_was_written(
    photos: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["classify", "--data", photos, "--recipe", recipe, "--epochs", "10000", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "train.py", *map(str, words)],
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
