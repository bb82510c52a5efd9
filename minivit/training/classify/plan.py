"""The parts of `train.py classify`: training samples from scenes, photos or IDX files."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from minivit.data.loading import load_all
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.idx import IdxDataset, has_idx, read_idx
from minivit.data.photos.splits import PhotoSet, read_photos
from minivit.data.scenes.dataset import BACKGROUND, CLASS_NAMES, VALIDATION_SEED, ScenesDataset
from minivit.preprocess import Preprocess
from minivit.training.classify.model import load_start, make_classifier
from minivit.training.classify.report import photo_report, scene_report
from minivit.training.classify.task import ClassificationTask, LabelledImages, PhotoData
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Bar, Plan
from minivit.vit import VisionTransformer

NUM_HELD_OUT = 2000  # scenes, for validation while training and for the test after it
MOST_NAMED = 10  # photos that cannot be read, on the terminal
MOST_PHOTOS = 32  # at once where nothing is learned from them: they may be large


def plan_classifier(recipe: ClassifyRecipe, bar: Bar) -> Plan:
    """Model, data and report of a run.

    Args:
        recipe: What is wanted.
        bar: Shows how far reading or drawing has come.

    Raises:
        ValueError: Data or weights that cannot be used; see `read_photos` and `load_start`.
        OSError: Files that cannot be read.
    """
    start = load_start(recipe)  # before the photos, which take a while
    if recipe.data == "scenes":
        return plan_scenes(start, recipe, bar)
    if has_idx(Path(recipe.data)):
        return plan_idx(start, recipe)
    return plan_photos(start, recipe, bar)


# ---- the data ------------------------------------------------------------------------------------


def plan_scenes(start: VisionTransformer | None, recipe: ClassifyRecipe, bar: Bar) -> Plan:
    """The built-in scenes, drawn into memory; each patch is asked what it shows."""
    model, what = make_classifier(recipe, CLASS_NAMES, start)
    draw = partial(draw_scenes, model, workers=recipe.workers, bar=bar)
    train = draw("training scenes", recipe.seed, recipe.num_training_scenes())
    train = dataclasses.replace(train, turned=True, seed=recipe.seed)
    held = draw("validation scenes", VALIDATION_SEED, NUM_HELD_OUT)
    return Plan(
        task=ClassificationTask(
            model, num_patch_classes=BACKGROUND + 1, token_loss=recipe.token_loss
        ),
        train=train,
        validation=held,
        lines=[f"{len(train):,} scenes of {len(CLASS_NAMES)} classes", what],
        report=partial(scene_report, train=train, draw=draw, num_scenes=NUM_HELD_OUT),
        chance=1 / len(CLASS_NAMES),
    )


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
        model: Gives the sizes of pictures and patches.
        name: Of the bar.
        seed: Of the scenes.
        length: How many.
        difficulty: See `minivit.data.scenes.dataset`.
        workers: Processes that draw.
        bar: Shows how many are drawn.
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


def plan_photos(start: VisionTransformer | None, recipe: ClassifyRecipe, bar: Bar) -> Plan:
    """Photos with labels, opened and augmented when they are needed."""
    splits = read_photos(
        recipe.data,
        seed=recipe.seed,
        strict=recipe.strict,
        workers=recipe.workers,
        bar=bar,
        held_out=recipe.held_out,
    )
    model, what = make_classifier(recipe, splits.class_names, start)
    augmentation = make_augmentation(recipe, model.preprocess)
    photos = first_photos(splits.train, recipe.limit)
    left_out = [f"left out: {reason}" for reason in splits.unreadable]
    validation = plain_photos(splits.validation, model.preprocess)
    return Plan(
        task=ClassificationTask(model),
        train=PhotoData(
            PhotoDataset(photos, augmentation, seed=recipe.seed),
            recipe.workers,
            make_mixing(recipe, len(splits.class_names)),
            recipe.seed,
        ),
        validation=PhotoData(validation, recipe.workers),
        lines=[splits.description, *_first(left_out), what],
        report=partial(
            photo_report,
            validation=validation,
            test=None if splits.test is None else plain_photos(splits.test, model.preprocess),
            workers=recipe.workers,
            batch_size=MOST_PHOTOS,
            notes=[splits.description, *left_out, augmentation.describe()],
        ),
        evaluation_batch=min(recipe.batch_size, MOST_PHOTOS),
        chance=1 / len(splits.class_names),
    )


def plan_idx(start: VisionTransformer | None, recipe: ClassifyRecipe) -> Plan:
    """Grey pictures of IDX files, which have training and test samples.

    A part of the training samples, drawn with the seed, is held out to choose the best epoch by.
    """
    data = read_idx(Path(recipe.data))
    names = data.class_names
    model, what = make_classifier(recipe, names, start)
    augmentation = make_augmentation(recipe, model.preprocess)
    random = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(data.train_labels), generator=random)
    held = order[: round(recipe.held_out * len(order))]
    rest = order[len(held) :][: recipe.limit or None]
    images, labels = data.train_images, data.train_labels
    train = IdxDataset(images[rest], labels[rest], augmentation, seed=recipe.seed)
    plain = make_augmentation(None, model.preprocess)
    validation = IdxDataset(images[held], labels[held], plain)
    test = IdxDataset(data.test_images, data.test_labels, plain)
    said = (
        f"IDX files: {len(train):,} pictures of {len(names)} classes to train on, "
        f"{len(held):,} held out (seed {recipe.seed}), {len(test):,} to test on"
    )
    return Plan(
        task=ClassificationTask(model),
        train=PhotoData(train, recipe.workers, make_mixing(recipe, len(names)), recipe.seed),
        validation=PhotoData(validation, recipe.workers),
        lines=[said, what],
        report=partial(
            photo_report,
            validation=validation,
            test=test,
            workers=recipe.workers,
            batch_size=250,
            notes=[said, augmentation.describe()],
        ),
        chance=1 / len(names),
    )


def first_photos(photos: PhotoSet, limit: int) -> PhotoSet:
    """The first so many photos, of each class in turn, so that all classes are among them.

    Args:
        photos: In order.
        limit: How many; 0: all.
    """
    if not limit or limit >= len(photos):
        return photos
    chosen = in_turn(photos.labels or [0] * len(photos))[:limit]
    return dataclasses.replace(
        photos,
        paths=tuple(photos.paths[index] for index in sorted(chosen)),
        labels=tuple(photos.labels[index] for index in sorted(chosen) if photos.labels),
        names=tuple(photos.names[index] for index in sorted(chosen)),
    )


def in_turn(labels: Sequence[int]) -> list[int]:
    """Indices of the first of each class, then of the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for index, label in enumerate(labels):
        turns.append((seen[label], label, index))
        seen[label] += 1
    return [index for _, _, index in sorted(turns)]


def plain_photos(photos: PhotoSet, preprocess: Preprocess) -> PhotoDataset:
    """Photos as they are shown to a model that is used: resized and cropped, nothing else."""
    return PhotoDataset(photos, make_augmentation(None, preprocess))


def make_augmentation(recipe: ClassifyRecipe | None, preprocess: Preprocess) -> Augmentation:
    """What is done to training photos.

    Args:
        recipe: Says what; None: nothing, the photo as the model is given it when it is used.
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


def _first(left_out: Sequence[str]) -> list[str]:
    """The first photos, and how many more there are: thousands of lines would hide the rest."""
    more = len(left_out) - MOST_NAMED
    return [*left_out[:MOST_NAMED], *([f"left out: {more:,} more, see report.md"] * (more > 0))]
