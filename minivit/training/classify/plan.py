"""The plan of a classifier's run: model, samples and report, for scenes or photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.splits import read_photos
from minivit.data.scenes.dataset import BACKGROUND, CLASS_NAMES, NUM_HELD_OUT, VALIDATION_SEED
from minivit.training.classify.data import (
    PhotoData,
    draw_scenes,
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
MOST_IN_MEMORY = 250  # pictures of IDX files at once, which are small


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
            model,
            num_patch_classes=BACKGROUND + 1,
            token_loss=recipe.token_loss,
            place_loss=recipe.place_loss,
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
        report_seconds=25.0,  # scenes are drawn, pixels probed; of 34 on a core of an EPYC (Zen 5)
        report_validations=4.0,
    )


def plan_photos(start: VisionTransformer | None, recipe: ClassifyRecipe, bar: Bar) -> Plan:
    """Photos with labels in any layout, opened and augmented when they are needed."""
    splits = read_photos(
        recipe.data,
        seed=recipe.seed,
        strict=recipe.strict,
        workers=recipe.workers,
        bar=bar,
        held_out=recipe.held_out,
        limit=recipe.limit,
        labels=recipe.labels,
    )
    model, model_line = make_classifier(recipe, splits.class_names, start)
    if splits.data_labels != splits.class_names:
        model.data_labels = splits.data_labels
    augmentation = make_augmentation(recipe, model.preprocess)
    left_out = [f"left out: {reason}" for reason in splits.unreadable]
    validation = plain_photos(splits.validation, model.preprocess)
    small = splits.validation.in_memory
    return Plan(
        task=ClassificationTask(model),
        train=PhotoData(
            PhotoDataset(splits.train, augmentation, seed=recipe.seed),
            recipe.workers,
            make_mixing(recipe, len(splits.class_names)),
            recipe.seed,
        ),
        validation=PhotoData(validation, recipe.workers),
        digest=photo_digest(
            splits.class_names,
            train=zip(splits.train.names, splits.train.labels, strict=True),
            validation=zip(splits.validation.names, splits.validation.labels, strict=True),
        ),
        lines=[splits.description, *_first(left_out), model_line],
        axes=AXES,
        report=partial(
            photo_report,
            validation=validation,
            test=None if splits.test is None else plain_photos(splits.test, model.preprocess),
            workers=recipe.workers,
            batch_size=MOST_IN_MEMORY if small else MOST_PHOTOS,
            notes=[splits.description, *left_out, augmentation.describe()],
        ),
        evaluation_batch=MOST_IN_MEMORY if small else min(recipe.batch_size, MOST_PHOTOS),
        chance=1 / len(splits.class_names),
        report_seconds=3.0,  # figures are drawn
        report_validations=1 + len(splits.test or ()) / max(1, len(splits.validation)),
    )


def _first(left_out: Sequence[str]) -> list[str]:
    """The first lines and the number of the others: thousands of lines would hide the rest."""
    lines = list(left_out[:MOST_NAMED])
    more = len(left_out) - len(lines)
    if more:
        lines.append(f"left out: {more:,} more, see report.md")
    return lines
