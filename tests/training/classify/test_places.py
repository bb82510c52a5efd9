"""The questions about places: what is right is known cell by cell."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from minivit.training.classify.data import ImageBatch, turn
from minivit.training.classify.places import PlaceLoss, main_place
from minivit.training.classify.task import ClassificationTask
from tests.training.tasks import SETTINGS, bright_side, small_model

ROWS, COLS = 4, 4


def one_object(row: int, col: int) -> torch.Tensor:
    """(1, rows, cols): class 7 at one place, class 9 everywhere else."""
    grid = torch.full((1, ROWS, COLS), 9)
    grid[0, row, col] = 7
    return grid


def soft_loss(answers: torch.Tensor, right: int) -> torch.Tensor:
    """Cross-entropy with a Gaussian of 1.5 classes around the right one."""
    weights = torch.tensor([math.exp(-((i - right) ** 2) / 4.5) for i in range(len(answers))])
    return -(weights / weights.sum() * answers.log_softmax(0)).sum()


def test_the_place_of_an_object_is_the_mean_of_its_patches() -> None:
    grid = torch.zeros(3, 5, 8, dtype=torch.int64)
    grid[0, 1:4, 6] = 3  # a column of three
    grid[1, 4, 0:3] = 3  # a row of three
    row, col = main_place(grid, torch.tensor([3, 3, 3]))
    assert row.tolist() == [2, 4, -100] and col.tolist() == [6, 1, -100]


def test_a_turned_picture_has_its_object_where_it_was_turned_to() -> None:
    grid, images = one_object(0, 3), torch.zeros(1, 3, 8, 8)
    for which in range(8):
        _, turned = turn(images, grid, which)
        assert turned is not None
        row, col = main_place(turned, torch.tensor([7]))
        assert turned[0, row, col] == 7


def test_every_patch_and_the_class_token_are_asked_as_the_formula_says() -> None:
    torch.manual_seed(0)
    model = small_model()
    places = PlaceLoss(model)
    tokens, row, col = torch.randn(1, 17, model.config.dim), 1, 2
    loss = places(tokens, one_object(row, col), torch.tensor([7]))
    expected = torch.tensor(0.0)
    for i in range(ROWS):
        for j in range(COLS):
            answer = places.offset_head(tokens[0, 1 + COLS * i + j])
            expected += soft_loss(answer[:7], i - row + 3) / 32
            expected += soft_loss(answer[7:], j - col + 3) / 32
    answer = places.place_head(tokens[0, 0])
    expected += F.cross_entropy(answer[:4], torch.tensor(row)) / 2
    expected += F.cross_entropy(answer[4:], torch.tensor(col)) / 2
    torch.testing.assert_close(loss, expected)


def test_a_picture_whose_object_no_patch_shows_adds_nothing() -> None:
    torch.manual_seed(0)
    places = PlaceLoss(small_model())
    tokens = torch.randn(2, 17, places.place_head.in_features)
    grid = torch.cat([one_object(1, 2), torch.full((1, ROWS, COLS), 9)])
    both = places(tokens, grid, torch.tensor([7, 7]))
    alone = places(tokens[:1], grid[:1], torch.tensor([7]))
    torch.testing.assert_close(both, alone)
    assert places(tokens[1:], grid[1:], torch.tensor([7])) == 0


def test_the_task_adds_the_loss_by_its_weight() -> None:
    data = bright_side(5, seed=0)
    batch = ImageBatch(data.images, data.labels, data.patch_labels)
    model = small_model()
    with_places = ClassificationTask(model, num_patch_classes=2, place_loss=2.0).eval()
    without = ClassificationTask(model, num_patch_classes=2).eval()
    assert with_places.patch_head is not None and with_places.places is not None
    assert without.patch_head is not None and without.places is None
    without.patch_head.load_state_dict(with_places.patch_head.state_dict())
    tokens = model.encode(model.preprocess.normalize(data.images))
    places = with_places.places(tokens, batch.grid, batch.labels)
    difference = with_places(batch, SETTINGS) - without(batch, SETTINGS)
    torch.testing.assert_close(difference, torch.stack([2 * places, torch.tensor(0.0)]))


def test_a_model_without_class_token_is_refused() -> None:
    model = small_model(class_token=False, pooling="mean")
    with pytest.raises(ValueError, match="place_loss asks the class token"):
        PlaceLoss(model)
