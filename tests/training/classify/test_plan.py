"""The plans of classifiers: photos and IDX files become samples, a model and lines for the user."""

from __future__ import annotations

import dataclasses
import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minivit.checkpoint import save_model
from minivit.training.classify.plan import plan_classifier
from minivit.training.classify.preview import preview_figure
from minivit.training.classify.task import ClassificationTask
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Piece
from tests.training.photo_runs import make_photos

NAMES = ("cat", "dog", "horse")


def recipe(**values: Any) -> ClassifyRecipe:
    return ClassifyRecipe(epochs=1, batch_size=4, lr=1e-3, **values)


def no_bar(_title: str, _total: int) -> Any:
    return lambda _done: None


# ---- augmentation --------------------------------------------------------------------------------


# ---- the data ------------------------------------------------------------------------------------


def test_photos_become_a_plan(tmp_path: Path) -> None:
    place = make_photos(tmp_path / "photos")
    (place / "train" / "green" / "0.png").write_bytes(b"broken")
    small = recipe(data=str(place), image_size=32, patch_size=8, dim=16, depth=1, num_heads=1)
    plan = plan_classifier(dataclasses.replace(small, crop_scale=(0.5, 1.0)), no_bar)
    assert len(plan.train) == 41 and len(plan.validation) == 15
    assert any("0.png" in line and line.startswith("left out") for line in plan.lines)
    first, second = (next(plan.train.load(epoch, [Piece(0, [0, 1])])).images for epoch in (0, 1))
    assert first.shape == (2, 3, 32, 32) and not torch.equal(first, second)
    held = [next(plan.validation.load(epoch, [Piece(0, [0])])).images for epoch in (0, 1)]
    assert torch.equal(*held)
    with pytest.raises(ValueError, match=r"0\.png"):
        plan_classifier(dataclasses.replace(small, strict=True), no_bar)


def test_of_many_unreadable_photos_the_first_are_named(tmp_path: Path) -> None:
    place = make_photos(tmp_path / "photos")
    for number in range(12):
        (place / "train" / "green" / f"bad{number:02}.png").write_bytes(b"broken")
    small = recipe(data=str(place), image_size=32, patch_size=8, dim=16, depth=1, num_heads=1)
    plan = plan_classifier(small, no_bar)
    lines = [line for line in plan.lines if line.startswith("left out")]
    assert len(lines) == 11 and "bad09.png" in lines[9]
    assert lines[10] == "left out: 2 more, see report.md"
    notes = plan.report.keywords["notes"]  # type: ignore[attr-defined]
    assert "bad11.png" in notes[12] and len(notes) == 14


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def idx_recipe(folder: Path) -> ClassifyRecipe:
    """A small recipe for noise in IDX files: 50 pictures to train on, 12 to test on, 4 classes."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 50), ("t10k", 12)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (number, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(number) % 4)
    return recipe(
        data=str(folder), image_size=28, patch_size=7, dim=16, depth=1, num_heads=1, held_out=0.2
    )


def test_idx_files_become_a_plan(tmp_path: Path) -> None:
    small = idx_recipe(tmp_path)
    plan = plan_classifier(small, no_bar)
    assert (len(plan.train), len(plan.validation)) == (40, 10)
    assert (
        "40 pictures of 4 classes to train on, 10 held out (seed 0), 12 to test on" in plan.lines[0]
    )
    batch = next(plan.train.load(0, [Piece(0, list(range(40)))]))
    held = next(plan.validation.load(0, [Piece(0, list(range(10)))]))
    seen = {image.numpy().tobytes() for image in (*batch.images, *held.images)}
    assert len(seen) == 50  # no picture on both sides
    assert len(plan_classifier(dataclasses.replace(small, limit=5), no_bar).train) == 5
    assert plan.evaluation_batch == 250  # small pictures: as many at once as scenes


def test_idx_files_have_the_report_of_photos(tmp_path: Path) -> None:
    small = idx_recipe(tmp_path)
    plan = plan_classifier(small, no_bar)
    assert isinstance(plan.task, ClassificationTask)
    save_model(plan.task.model, tmp_path / "best.safetensors")
    report = plan.report(tmp_path, torch.device("cpu"))
    assert [line.split(":")[0] for line in report.lines] == [
        "10 validation photos",
        "12 test photos",
    ]
    named = re.findall(r"^- picture (\d+)$", report.more, re.MULTILINE)
    assert named and {int(number) for number in named} <= set(range(12))  # of the test
    assert (tmp_path / "mistakes.png").exists()


def test_a_preview_of_idx_files_shows_pictures_to_train_on(tmp_path: Path) -> None:
    figure, lines = preview_figure(idx_recipe(tmp_path), no_bar, num_photos=4)
    assert lines[0].startswith("IDX files: 40 pictures of 4 classes to train on, 10 held out")
    titles = [text.get_text() for text in figure.texts]
    assert [title for title in titles if not title.startswith("epoch")] == ["0", "1", "2", "3"]
