"""Samples of a classifier: the augmentation of a recipe, a few photos of many, turns and mixing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.augmentation.pipeline import CutMix, MixUp
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.sets import PhotoSet
from minivit.data.seeds import sample_rng
from minivit.training.classify.data import (
    PhotoData,
    make_augmentation,
    make_mixing,
    turn,
)
from minivit.training.classify.model import make_classifier
from minivit.training.recipes import ClassifyRecipe, make_recipe
from minivit.training.task import Piece
from tests.training.tasks import bright_side, small_model

NAMES = ("cat", "dog", "horse")


def recipe(**values: Any) -> ClassifyRecipe:
    return ClassifyRecipe(epochs=1, batch_size=4, lr=1e-3, **values)


# ---- in memory -----------------------------------------------------------------------------------


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


# ---- on disk -------------------------------------------------------------------------------------


def grey(length: int) -> PhotoDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (length, 32, 32), generator=generator).to(torch.uint8)
    preprocess = small_model().preprocess

    def transform(image: Image.Image, rng: object) -> torch.Tensor:
        return preprocess(image)

    labels = tuple(index % 2 for index in range(length))
    names = tuple(str(index) for index in range(length))
    return PhotoDataset(PhotoSet((), labels, names, pixels=images), transform)


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


# ---- augmentation --------------------------------------------------------------------------------


def photo(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_without_a_recipe_the_photo_is_what_the_model_is_given() -> None:
    preprocess = make_classifier(recipe(image_size=32), NAMES, None)[0].preprocess
    plain = make_augmentation(None, preprocess)
    for image in (photo(), photo(1, 1), photo(7, 90)):
        assert torch.equal(plain(image, sample_rng(0, 0, 0)), preprocess(image))
    assert make_augmentation(recipe(), preprocess) == plain


def test_every_key_of_a_recipe_adds_its_transform() -> None:
    preprocess = make_classifier(recipe(image_size=32), NAMES, None)[0].preprocess
    said = make_augmentation(
        recipe(
            crop_scale=(0.7, 1.0), brightness=0.3, hue=0.1, flip=0.25, rotation=15.0,
            rand_augment=2, rand_magnitude=7, erasing=0.4,
        ),
        preprocess,
    ).describe()  # fmt: skip
    for part in (
        "RandomResizedCrop(size=(32, 32), scale=(0.7, 1.0)",
        "ColorJitter(brightness=0.3, contrast=0.0, saturation=0.0, hue=0.1)",
        "RandomHorizontalFlip(p=0.25)",
        "RandomRotation(degrees=15.0",
        "RandAugment(num_ops=2, magnitude=7",
        "RandomErasing(p=0.4",
    ):
        assert part in said


def test_the_published_recipe_augments_as_published() -> None:
    pets = make_recipe(ClassifyRecipe, "pets_sgd")
    preprocess = make_classifier(recipe(image_size=32), NAMES, None)[0].preprocess
    names = [type(each).__name__ for each in make_augmentation(pets, preprocess).transforms]
    assert names == ["RandomResizedCrop", "ColorJitter", "RandomHorizontalFlip", "RandomRotation"]


def test_mixing_is_what_the_recipe_says() -> None:
    assert make_mixing(recipe(), 3) == ()
    assert make_mixing(recipe(mixup=0.8), 3) == (MixUp(3, alpha=0.8),)
    assert make_mixing(recipe(mixup=0.8, cutmix=1.0), 3) == (MixUp(3, alpha=0.8), CutMix(3))
