"""--resume where something beside the photos has changed: one line, and nothing is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
import train
from minivit.training.loop import Trainer
from minivit.training.run_folder import RunFolder
from tests.training.photo_runs import make_photos

WORDS = [
    *("classify", "--data", "photos", "--weights", "w.safetensors", "--set", "image_size=32"),
    *("--set", "save_every=1", "--batch-size", "8", "--workers", "0", "--epochs", "2"),
    *("--out", "run"),
]


def save(path: Path, **values: Any) -> None:
    torch.manual_seed(0)
    config = minivit.ViTConfig.from_name("debug_patch8_32", num_classes=3, **values)
    model = minivit.VisionTransformer(config, labels=["blue", "green", "red things"])
    minivit.save_model(model, path)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, weights, and a run that ended before its fourth step."""
    place = tmp_path_factory.mktemp("unfinished")
    make_photos(place / "photos", per_class=6)
    save(place / "w.safetensors")
    real = Trainer._run_step

    def run_step(self: Trainer, batches: Any) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        real(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(Trainer, "_run_step", run_step)
        assert train.main(WORDS) == 130
    assert (place / "run" / "state.pt").exists()
    return place


@pytest.fixture
def place(unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(unfinished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def old_state(**changes: Any) -> Callable[[], None]:
    """A state as an earlier minivit saved it, without digest and recipe.

    Args:
        changes: Fields that are other; None: one that is missing.
    """

    def change() -> None:
        state = torch.load("run/state.pt", weights_only=True)
        for name in ("recipe", "model", "data"):
            del state[name]
        for name, value in changes.items():
            state[name] = value
        torch.save(
            {key: value for key, value in state.items() if value is not None}, "run/state.pt"
        )

    return change


def turn_a_bit() -> None:
    data = bytearray(Path("run/state.pt").read_bytes())
    state = torch.load("run/state.pt", weights_only=True)
    weight = state["task"]["model.head.weight"].numpy().tobytes()
    data[data.find(weight[:32]) + 2] ^= 0x20
    Path("run/state.pt").write_bytes(data)


CHANGES = [
    (lambda: save(Path("w.safetensors"), depth=3), "hold another model than the one that the run"),
    (lambda: torch.save([1, 2], "run/state.pt"), "holds a list, expected the state of a run"),
    (turn_a_bit, "cannot be read (damaged)"),
    (old_state(sums=None), "is no state of this model and recipe ('sums' is missing)"),
    (old_state(place=[7, 0, 0, 0]), "(phase 7, expected 0 to 0)"),
    (old_state(place=[0, 0, 0]), "is no state of this model and recipe"),
    (old_state(place="abcd"), "is no state of this model and recipe"),
    (old_state(optimizers=[]), "is no state of this model and recipe"),
    (old_state(optimizers=[{"state": {}}]), "is no state of this model and recipe"),
    (old_state(task={"model.head.weight": torch.ones(9)}), "is no state of this model and recipe"),
    (old_state(epochs=[(1, 2)], sums=torch.zeros(2)), "is no state of this model and recipe"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_another_model_or_state_is_one_line(
    change: Callable[[], None], reason: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change()
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    capsys.readouterr()
    assert train.main([*WORDS, "--resume"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "rror" in line]
    assert len(errors) == 1 and "state.pt: " in errors[0] and reason in errors[0], errors
    after = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    mark = Path("run/minivit-run.json")  # says who was there last
    del before[mark], after[mark]
    assert after == before


def test_without_recipe_toml_it_goes_on_with_the_recipe_of_the_state(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("run/recipe.toml").read_text()
    Path("run/recipe.toml").unlink()
    assert train.main([*WORDS, "--resume", "--lr", "0.5"]) == 2
    assert "lr was 0.0003 in that run and is 0.5 now" in capsys.readouterr().err
    assert train.main([*WORDS, "--resume"]) == 0
    assert "resumed after step 3 of 6" in capsys.readouterr().out
    assert Path("run/recipe.toml").read_text() == text
    assert RunFolder(Path("run")).is_finished()


def test_weights_in_the_folder_that_is_to_be_replaced_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("start.safetensors").symlink_to("run/best.safetensors")
    shutil.copyfile("w.safetensors", "run/best.safetensors")
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    for weights in ("run/best.safetensors", "start.safetensors"):
        assert train.main([*WORDS, "--weights", weights, "--overwrite"]) == 2
        assert "run/best.safetensors: is an input" in capsys.readouterr().err
    assert set(before) == {path for path in Path("run").iterdir() if path.is_file()}
    assert Path("run/best.safetensors").read_bytes() == before[Path("run/best.safetensors")]


def test_a_folder_of_photos_is_no_run_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path("photos").rglob("*"))
    for how in ([], ["--overwrite"], ["--resume"]):
        assert train.main([*WORDS, "--out", "photos", *how]) == 2
        assert "photos: is no run folder" in capsys.readouterr().err
    assert sorted(Path("photos").rglob("*")) == before
