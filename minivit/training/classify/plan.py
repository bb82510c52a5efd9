"""The plan of a classifier's run: model, samples and report, for scenes, photos or IDX files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.idx import IdxDataset, has_idx, read_idx
from minivit.data.photos.splits import read_photos
from minivit.data.scenes.dataset import BACKGROUND, CLASS_NAMES, NUM_HELD_OUT, VALIDATION_SEED
from minivit.training.classify.data import (
    PhotoData,
    draw_scenes,
    first_photos,
    make_augmentation,
    make_mixing,
    plain_photos,
)
from minivit.training.classify.model import load_start, make_classifier
from minivit.training.classify.report import photo_report, scene_report
from minivit.training.classify.task import ClassificationTask
from minivit.training.data_digest import photo_digest, scene_digest
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Bar, Plan
from minivit.vit import VisionTransformer

AXES = ("Loss of the class", "right answers (%)")  # of the curves
MOST_NAMED = 10  # lines on the terminal about photos that cannot be read
MOST_PHOTOS = 32  # photos at once without gradients: they may be large


def plan_classifier(recipe: ClassifyRecipe, bar: Bar) -> Plan:
    """Model, data and report of a run.

    Args:
        recipe: Recipe of the run.
        bar: Progress bar of reading and drawing.

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
    """The built-in scenes, drawn into memory; the patches too learn what they show."""
    model, model_line = make_classifier(recipe, CLASS_NAMES, start)
    draw = partial(draw_scenes, model, workers=recipe.workers, bar=bar)
    train = draw("training scenes", recipe.seed, recipe.num_training_scenes())
    train = dataclasses.replace(train, turned=True, seed=recipe.seed)
    validation = draw("validation scenes", VALIDATION_SEED, NUM_HELD_OUT)
    return Plan(
        task=ClassificationTask(
            model, num_patch_classes=BACKGROUND + 1, token_loss=recipe.token_loss
        ),
        train=train,
        validation=validation,
        digest=scene_digest(
            "classes",
            CLASS_NAMES,
            train=(train.images, train.labels),
            validation=(validation.images, validation.labels),
        ),
        lines=[f"{len(train):,} scenes of {len(CLASS_NAMES)} classes", model_line],
        axes=AXES,
        report=partial(scene_report, train=train, draw=draw, num_scenes=NUM_HELD_OUT),
        chance=1 / len(CLASS_NAMES),
    )


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
    model, model_line = make_classifier(recipe, splits.class_names, start)
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
        digest=photo_digest(
            splits.class_names,
            train=zip(photos.names, photos.labels, strict=True),
            validation=zip(splits.validation.names, splits.validation.labels, strict=True),
        ),
        lines=[splits.description, *_first(left_out), model_line],
        axes=AXES,
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

    A part of the training samples, drawn from the seed, is held out to choose the best epoch.
    """
    data = read_idx(Path(recipe.data))
    names = data.class_names
    model, model_line = make_classifier(recipe, names, start)
    augmentation = make_augmentation(recipe, model.preprocess)
    random = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(data.train_labels), generator=random)
    held_out = order[: round(recipe.held_out * len(order))]
    rest = order[len(held_out) :][: recipe.limit or None]
    images, labels = data.train_images, data.train_labels
    train = IdxDataset(images[rest], labels[rest], augmentation, seed=recipe.seed)
    plain = make_augmentation(None, model.preprocess)
    validation = IdxDataset(images[held_out], labels[held_out], plain)
    test = IdxDataset(data.test_images, data.test_labels, plain)
    description = (
        f"IDX files: {len(train):,} pictures of {len(names)} classes to train on, "
        f"{len(held_out):,} held out (seed {recipe.seed}), {len(test):,} to test on"
    )
    return Plan(
        task=ClassificationTask(model),
        train=PhotoData(train, recipe.workers, make_mixing(recipe, len(names)), recipe.seed),
        validation=PhotoData(validation, recipe.workers),
        digest=photo_digest(
            names,
            train=zip(rest.tolist(), labels[rest].tolist(), strict=True),
            validation=zip(held_out.tolist(), labels[held_out].tolist(), strict=True),
        ),
        lines=[description, model_line],
        axes=AXES,
        report=partial(
            photo_report,
            validation=validation,
            test=test,
            workers=recipe.workers,
            batch_size=250,
            notes=[description, augmentation.describe()],
        ),
        chance=1 / len(names),
    )


def _first(left_out: Sequence[str]) -> list[str]:
    """The first lines and the number of the others: thousands of lines would hide the rest."""
    lines = list(left_out[:MOST_NAMED])
    more = len(left_out) - len(lines)
    if more:
        lines.append(f"left out: {more:,} more, see report.md")
    return lines
