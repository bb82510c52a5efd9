"""Classification as a task: its losses, and what is counted."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from minivit.training.classify.data import ImageBatch
from minivit.training.classify.task import ClassificationTask
from minivit.training.evaluation import evaluate
from tests.training.tasks import ALONE, SETTINGS, bright_side, small_model


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
