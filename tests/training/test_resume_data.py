"""A run goes on with its own samples only: photos, captions and scenes, by train.py itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import train
from minivit.data.scenes import painting
from minivit.training.caption import plan as caption_plan
from minivit.training.classify import plan as classify_plan
from minivit.training.loop import Trainer
from minivit.training.recipe_toml import read_recipe
from tests.training.caption.recipes import SMALL, VOCAB
from tests.training.photo_runs import call, make_photos, make_recipe_file

CAPTIONS = ["a dog left of a cat", "a cat", "a dog", "a cat of a dog"] * 2


def run(*words: object) -> int:
    return train.main([str(word) for word in words])


def interrupted(words: Sequence[object], after: int = 2) -> None:
    """Begins a run that Ctrl-C ends after so many steps."""
    step = Trainer._run_step

    def stops(trainer: Trainer, batches: list[object]) -> None:
        if trainer.step == after:
            raise KeyboardInterrupt
        step(trainer, batches)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_run_step", stops)
        assert run(*words) == 130


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert run(*words) == 2
    printed, errors = capsys.readouterr()
    assert "resumed" not in printed
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


# ---- photos --------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> list[object]:
    """Words of a run on photos that is interrupted."""
    make_photos(tmp_path / "photos", per_class=4)
    (tmp_path / "photos/train/blue/3.png").write_bytes(b"not a picture")
    recipe = make_recipe_file(tmp_path / "small.toml", "save_every = 1\n")
    words = ["classify", "--data", tmp_path / "photos", "--recipe", recipe, "--workers", "0"]
    words += ["--batch-size", "4", "--epochs", "1", "--out", tmp_path / "run"]
    interrupted(words)
    return words


def test_other_photos_are_refused_and_the_same_go_on(
    photos: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused changes no file of the run, and can be put back."""
    data, out = tmp_path / "photos", tmp_path / "run"
    before = {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
    assert "state.pt" in before
    start = f"error: {out / 'state.pt'}: the data are not those of this run: "
    back = "; put the data back as they were, or --overwrite"

    (data / "train/red things/2.png").rename(tmp_path / "2.png")
    said = "of the photos to train on, 1 was removed ('red things/2.png')"
    assert refusal(capsys, *photos, "--resume") == f"{start}{said}{back}"
    (tmp_path / "2.png").rename(data / "train/red things/2.png")

    for split in ("train", "val"):
        (data / split / "red things").rename(data / split / "a")
    said = "classes were 'blue', 'green', 'red things' (3) and are 'a', 'blue', 'green' (3)"
    assert refusal(capsys, *photos, "--resume") == f"{start}{said}{back}"
    for split in ("train", "val"):
        (data / split / "a").rename(data / split / "red things")

    (data / "train/green/9.png").write_bytes(b"no picture either")  # left out, as 3.png was
    shutil.copy(data / "train/blue/0.png", data / "train/blue/3.png")
    said = "of the photos to train on, 1 was added ('blue/3.png')"
    assert refusal(capsys, *photos, "--resume") == f"{start}{said}{back}"
    (data / "train/blue/3.png").unlink()

    assert before == {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
    assert run(*photos, "--resume") == 0
    assert "resumed after step 2 of 3" in capsys.readouterr().out


def test_the_folder_may_lie_elsewhere(
    photos: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe says then where it lies, so that it trains the same again."""
    here, there = tmp_path / "photos", tmp_path / "moved/there"
    shutil.copytree(here, there)  # on a file system that lists its files in an order of its own
    shutil.rmtree(here)
    words = [there if word == here else word for word in photos]
    assert run(*words, "--resume") == 0
    printed = capsys.readouterr().out
    assert f"{there}: names and labels are those of {here}, as the run began\n" in printed
    assert "resumed after step 2 of 3" in printed
    assert read_recipe(str(tmp_path / "run/recipe.toml"))["data"] == str(there)


def test_a_state_that_cannot_tell_its_data_keeps_to_their_place(
    photos: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state of an earlier build: one line says that nothing was compared."""
    path = tmp_path / "run/state.pt"
    state = torch.load(path, weights_only=True)
    for name in ("data", "recipe", "model"):
        del state[name]
    torch.save(state, path)
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    elsewhere = [tmp_path / "copy" if word == tmp_path / "photos" else word for word in photos]
    assert "data was " in refusal(capsys, *elsewhere, "--resume")
    assert run(*photos, "--resume") == 0
    printed = capsys.readouterr().out
    assert printed.count("it cannot tell whether the data changed") == 1
    assert "resumed after step 2 of 3" in printed


def test_all_processes_refuse_together(photos: list[object], tmp_path: Path) -> None:
    (tmp_path / "photos/train/green/1.png").unlink()
    done = call(*photos, "--resume", processes=2, timeout=120)
    assert done.returncode != 0
    said = "1 was removed ('green/1.png')"
    assert [said in line for line in done.stderr.splitlines() if "error: " in line] == [True]
    assert "another process" not in done.stderr and "resumed" not in done.stdout


# ---- captions ------------------------------------------------------------------------------------


def test_other_captions_or_words_are_refused_and_the_same_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, vocab, out = tmp_path / "captions.csv", tmp_path / "vocab.txt", tmp_path / "run"
    pictures = make_photos(tmp_path / "photos", per_class=3) / "train"
    names = sorted(path.relative_to(tmp_path).as_posix() for path in pictures.glob("*/*.png"))[:8]

    def write(captions: Sequence[str], words: Sequence[str]) -> None:
        rows = [f"{name},{text}\n" for name, text in zip(names, captions, strict=False)]
        table.write_text("".join(["file,caption\n", *rows]))
        vocab.write_text("\n".join(words))

    write(CAPTIONS, VOCAB)
    words = ["caption", "--data", table, "--vocab", vocab, "--out", out, "--recipe", "catr_coco"]
    words += ["--set", "backbone=vit", "--set", "max_length=8", "--set", "save_every=1"]
    words += ["--epochs", "1", "--batch-size", "2"]
    for key, value in SMALL.items():
        words += ["--set", f"{key}={value}"]
    interrupted(words)
    start = f"error: {out / 'state.pt'}: the data are not those of this run: "

    write(["a cat of a cat", *CAPTIONS[1:]], VOCAB)
    said = refusal(capsys, *words, "--resume")
    assert said.startswith(f"{start}of the photos with captions to ")
    assert f"the captions of '{names[0]}' are others; put " in said
    write(CAPTIONS[:7], VOCAB)
    assert f"removed ('{names[7]}')" in refusal(capsys, *words, "--resume")
    write(CAPTIONS, (*VOCAB[:-2], "lion", "."))
    said = refusal(capsys, *words, "--resume")
    assert said.startswith(f"{start}words of the vocabulary were … ") and "'lion'" in said

    write(CAPTIONS, VOCAB)
    assert run(*words, "--resume") == 0
    assert "resumed after step 2 of 4" in capsys.readouterr().out


# ---- scenes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classify", "caption"])
def test_scenes_that_another_version_draws_are_refused(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (classify_plan, caption_plan):
        monkeypatch.setattr(module, "NUM_HELD_OUT", 20)
    words = [task, "--limit", "24", "--epochs", "1", "--workers", "0", "--out", tmp_path / "run"]
    words += ["--batch-size", "8", "--set", "save_every=1"]
    interrupted(words)
    with monkeypatch.context() as patch:
        texture = painting._texture
        patch.setattr(painting, "_texture", lambda *a: 0.5 * texture(*a))
        said = refusal(capsys, *words, "--resume")
    assert "of the built-in scenes to train on, number 0 is drawn or described in another" in said
    assert said.endswith("use the version of minivit that began the run, or --overwrite")
    assert run(*words, "--resume") == 0
    assert "resumed after step 2 of 3" in capsys.readouterr().out
