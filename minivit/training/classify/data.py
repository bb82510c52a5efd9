"""Samples of a classifier: scenes in memory, photos on disk, and what is done to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    CutMix,
    MixUp,
    RandAugment,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
)
from minivit.data.augmentation.transform import Transform
from minivit.data.loading import load_all, load_batches
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.sets import PhotoSet
from minivit.data.scenes.dataset import ScenesDataset
from minivit.data.seeds import sample_rng
from minivit.preprocess import Preprocess
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Bar, Piece
from minivit.vit import VisionTransformer


class ImageBatch(NamedTuple):
    """Pictures and their labels.

    Attributes:
        images: (B, 3, height, width): uint8, or floats that are normalised.
        labels: (B,) classes, or (B, classes) probabilities.
        grid: (B, rows, cols) int64, the class that each patch shows; or None.
    """

    images: Tensor
    labels: Tensor
    grid: Tensor | None = None


# ---- in memory -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledImages:
    """Samples in memory.

    Attributes:
        images: (n, 3, height, width) uint8.
        labels: (n,) int64.
        patch_labels: (n, rows, cols) int64, the class that each patch shows; or None.
        turned: Whether each step lays its pictures in one of eight ways, drawn from (seed, step):
            for square pictures that keep their label when they are turned or mirrored.
        seed: Seed of these turns.
    """

    images: Tensor
    labels: Tensor
    patch_labels: Tensor | None = None
    turned: bool = False
    seed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[ImageBatch]:
        """The batches of these pieces."""
        for piece in pieces:
            images, labels = self.images[piece.indices], self.labels[piece.indices]
            grid = None if self.patch_labels is None else self.patch_labels[piece.indices]
            if self.turned:
                which = int(sample_rng(self.seed, epoch, piece.step).integers(8))
                images, grid = turn(images, grid, which)
            yield ImageBatch(images, labels, grid)


def turn(images: Tensor, grid: Tensor | None, which: int) -> tuple[Tensor, Tensor | None]:
    """One of the eight ways to lay a square picture, the same for pictures and patch labels.

    Args:
        images: (B, 3, side, side).
        grid: (B, rows, cols) or None.
        which: 0 to 7: quarter turns, and a mirror image from 4 on.
    """
    images = torch.rot90(images, which % 4, (2, 3))
    grid = None if grid is None else torch.rot90(grid, which % 4, (1, 2))
    if which >= 4:
        images, grid = images.flip(3), None if grid is None else grid.flip(2)
    return images, grid


def draw_scenes(
    model: VisionTransformer,
    name: str,
    seed: int,
    length: int,
    difficulty: str = "full",
    *,
    workers: int,
    bar: Bar,
) -> LabelledImages:
    """Draws scenes of the size that a model takes into memory.

    Args:
        model: Model whose sizes of pictures and patches the scenes get.
        name: Title of the bar.
        seed: Seed of the scenes.
        length: Number of scenes.
        difficulty: "easy" or "full", see `minivit.data.scenes.dataset`.
        workers: Processes that draw.
        bar: Progress bar of the drawing.
    """
    scenes = ScenesDataset(
        seed,
        length,
        image_size=model.config.image_size,
        difficulty=difficulty,
        patch_size=model.config.patch_size,
    )
    images, labels, grid = load_all(scenes, workers=workers, on_batch=bar(name, length))
    return LabelledImages(images, labels, grid)


# ---- on disk -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhotoData:
    """Photos that are opened when they are needed, by processes beside this one.

    Attributes:
        photos: Data set with its augmentation.
        workers: Processes that open and augment; 0: this one.
        mixing: Ways of mixing, of which each step takes one, drawn from (seed, step); none: no
            mixing.
        seed: Seed of the mixing.
    """

    photos: PhotoDataset
    workers: int = 0
    mixing: tuple[MixUp | CutMix, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.photos)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[ImageBatch]:
        """The batches of these pieces."""
        self.photos.set_epoch(epoch)
        chosen = [piece.indices for piece in pieces]
        loaded = load_batches(self.photos, chosen, workers=self.workers, collate=collate_photos)
        for piece, (images, labels) in zip(pieces, loaded, strict=True):
            if self.mixing:
                rng = sample_rng(self.seed, epoch, piece.step)
                mix = self.mixing[int(rng.integers(len(self.mixing)))]
                images, labels = mix(images, labels, rng)
            yield ImageBatch(images, labels)


def collate_photos(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Pictures of one size and their labels, stacked: (B, 3, height, width) and (B,)."""
    return torch.stack([x for x, _ in items]), torch.tensor([label for _, label in items])


def plain_photos(photos: PhotoSet, preprocess: Preprocess, *, stops: bool = True) -> PhotoDataset:
    """Photos as a model in use gets them: resized and cropped; `stops` as `PhotoDataset` has it."""
    return PhotoDataset(photos, make_augmentation(None, preprocess), stops=stops)


# ---- chance --------------------------------------------------------------------------------------


def make_augmentation(recipe: ClassifyRecipe | None, preprocess: Preprocess) -> Augmentation:
    """The augmentation of training photos.

    Args:
        recipe: Recipe of the augmentation; None: the photo as a model in use gets it.
        preprocess: Size, filter and normalisation.
    """
    whole = Resize.of(preprocess)
    if recipe is None:
        return Augmentation(transforms=(whole,), preprocess=preprocess)
    transforms: list[Transform[Any]] = [whole]
    if recipe.crop_scale:
        (low, high), (narrow, wide) = recipe.crop_scale, recipe.crop_ratio
        crop = RandomResizedCrop(
            preprocess.image_size,
            scale=(low, high),
            ratio=(narrow, wide),
            filter=preprocess.filter,
        )
        transforms = [crop]
    jitter = {key: getattr(recipe, key) for key in ("brightness", "contrast", "saturation", "hue")}
    if any(jitter.values()):
        transforms.append(ColorJitter(**jitter))
    if recipe.flip:
        transforms.append(RandomHorizontalFlip(recipe.flip))
    if recipe.rotation:
        transforms.append(RandomRotation(recipe.rotation))
    if recipe.rand_augment:
        transforms.append(RandAugment(num_ops=recipe.rand_augment, magnitude=recipe.rand_magnitude))
    erasing = RandomErasing(p=recipe.erasing) if recipe.erasing else None
    return Augmentation(transforms=tuple(transforms), preprocess=preprocess, erasing=erasing)


def make_mixing(recipe: ClassifyRecipe, num_classes: int) -> tuple[MixUp | CutMix, ...]:
    """MixUp, CutMix, both to choose from, or none."""
    mixing: list[MixUp | CutMix] = []
    if recipe.mixup:
        mixing.append(MixUp(num_classes, alpha=recipe.mixup))
    if recipe.cutmix:
        mixing.append(CutMix(num_classes, alpha=recipe.cutmix))
    return tuple(mixing)
