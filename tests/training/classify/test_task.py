"""Classification as a task: its losses, what is counted, and samples in memory and on disk."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from minivit.data.augmentation.pipeline import CutMix, MixUp, sample_rng
from minivit.data.photos.idx import IdxDataset
from minivit.training.classify.linear_probe import linear_probe
from minivit.training.classify.task import (
    ClassificationTask,
    ImageBatch,
    LabelledImages,
    PhotoData,
    predict,
    turn,
)
from minivit.training.evaluation import evaluate
from minivit.training.task import Piece
from tests.training.tasks import ALONE, CPU, SETTINGS, bright_side, small_model


def test_the_loss_is_that_of_the_class_and_of_every_patch() -> None:
    task = ClassificationTask(small_model(), num_patch_classes=2, token_loss=3.0).eval()
    data = bright_side(5, seed=0)
    batch = ImageBatch(data.images, data.labels, data.patch_labels)
    minimised, reported = task(batch, SETTINGS)
    images = task.model.preprocess.normalize(data.images)
    tokens = task.model.encode(images)
    class_loss = F.cross_entropy(task.model(images), data.labels, reduction="sum")
    assert task.patch_head is not None and data.patch_labels is not None
    shown = task.patch_head(tokens[:, task.model.num_prefix_tokens :])
    patch_loss = F.cross_entropy(shown.flatten(0, 1), data.patch_labels.flatten(), reduction="mean")
    torch.testing.assert_close(reported, class_loss)
    torch.testing.assert_close(minimised, class_loss + 3 * 5 * patch_loss)
    assert task.count(batch) == 5


def test_without_patch_labels_the_class_alone_counts() -> None:
    data = bright_side(5, seed=0)
    for task in (
        ClassificationTask(small_model()),
        ClassificationTask(small_model(), num_patch_classes=2, token_loss=0.0),
    ):
        assert task.patch_head is None
        minimised, reported = task(
            ImageBatch(data.images, data.labels, data.patch_labels), SETTINGS
        )
        assert minimised == reported


def test_smoothed_and_mixed_targets_are_torchs() -> None:
    task, data = ClassificationTask(small_model()).eval(), bright_side(4, seed=0)
    images = task.model.preprocess.normalize(data.images)
    targets = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    smoothed = dataclasses.replace(SETTINGS, label_smoothing=0.2)
    for labels in (data.labels, targets):
        expected = F.cross_entropy(task.model(images), labels, label_smoothing=0.2)
        found = task(ImageBatch(images, labels), smoothed)[0] / 4
        torch.testing.assert_close(found, expected)


def test_pictures_and_patch_labels_are_turned_alike() -> None:
    data = bright_side(3, seed=1)
    assert data.patch_labels is not None
    seen = set()
    for which in range(8):
        images, grid = turn(data.images, data.patch_labels, which)
        assert grid is not None
        brightness = images.float().unflatten(2, (4, 8)).unflatten(4, (4, 8)).mean((1, 3, 5))
        assert torch.equal(brightness.flatten(1).argmax(1), grid.flatten(1).argmax(1))
        seen.add(images.numpy().tobytes())
    assert len(seen) == 8


def test_turns_depend_on_seed_and_step_alone() -> None:
    data = dataclasses.replace(bright_side(8, seed=1), turned=True, seed=3)
    pieces = [Piece(step, [0, 1]) for step in range(30)]
    whole = [batch.images for batch in data.load(0, pieces)]
    later = [batch.images for batch in data.load(0, pieces[12:])]
    assert all(torch.equal(a, b) for a, b in zip(whole[12:], later, strict=True))
    assert len({images.numpy().tobytes() for images in whole}) == 8


def test_whole_numbers_are_normalised_as_preprocess_does() -> None:
    model, data = small_model(), bright_side(1, seed=2)
    photo = Image.fromarray(data.images[0].permute(1, 2, 0).numpy())
    task = ClassificationTask(model).eval()
    ready = ImageBatch(model.preprocess(photo)[None], data.labels)
    assert torch.equal(task(ImageBatch(data.images, data.labels), SETTINGS), task(ready, SETTINGS))


def test_evaluation_counts_everything_once() -> None:
    model, data = small_model(), bright_side(18, seed=7)
    task = ClassificationTask(model)
    whole = evaluate(task, model, data, processes=ALONE)
    assert evaluate(task, model, data, processes=ALONE, batch_size=5) == pytest.approx(whole)
    with torch.no_grad():
        logits = model(model.preprocess.normalize(data.images))
    assert whole[0] == pytest.approx(F.cross_entropy(logits, data.labels).item())
    assert whole[1] == int((logits.argmax(1) == data.labels).sum()) / 18


def test_predictions_are_the_models_own_in_order() -> None:
    model, data, done = small_model(), bright_side(7, seed=7), []
    pieces = [Piece(0, [0, 1, 2]), Piece(0, [3, 4, 5, 6])]
    logits, labels = predict(model.train(), data.load(0, pieces), device=CPU, on_batch=done.append)
    with torch.no_grad():
        expected = model.eval()(model.preprocess.normalize(data.images))
    torch.testing.assert_close(logits, expected)
    assert torch.equal(labels, data.labels) and done == [3, 4]


def grey(length: int) -> IdxDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (length, 32, 32), generator=generator).to(torch.uint8)
    preprocess = small_model().preprocess

    def transform(image: Image.Image, rng: object) -> torch.Tensor:
        return preprocess(image)

    return IdxDataset(images, torch.arange(length) % 2, transform)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_step_is_mixed_by_one_of_the_ways(workers: int) -> None:
    mixing = (MixUp(2, alpha=0.8), CutMix(2, alpha=1.0))
    data = PhotoData(grey(8), workers, mixing, seed=5)
    pieces = [Piece(step, [0, 1, 2, 3]) for step in range(6)]
    plain = next(PhotoData(grey(8)).load(2, pieces[:1]))
    ways = set()
    for piece, batch in zip(pieces, data.load(2, pieces), strict=True):
        rng = sample_rng(5, 2, piece.step)
        which = int(rng.integers(2))
        expected = mixing[which](plain.images, plain.labels, rng)
        assert torch.equal(batch.images, expected[0]) and torch.equal(batch.labels, expected[1])
        ways.add(which)
    assert ways == {0, 1}


def test_the_linear_probe_reads_what_is_linear_and_not_what_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (600, 3, 4, 4), generator=generator).to(torch.uint8)
    linear = (images[:, 0].float().mean((1, 2)) > 127.5).long()
    parity = (images[:, 0, 0, 0] % 2).long()

    def accuracy(labels: torch.Tensor) -> float:
        train_set = LabelledImages(images[:500], labels[:500])
        return linear_probe(train_set, LabelledImages(images[500:], labels[500:]), num_classes=2)

    assert accuracy(linear) > 0.85
    assert accuracy(parity) < 0.7
