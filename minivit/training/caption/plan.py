"""The plan of a captioner's run: captioner, samples and report, for scenes or photos."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from minivit.captioner import Captioner
from minivit.data.captions.dataset import (
    CaptionDataset,
    CaptionSet,
    NoSplitError,
    collate_captions,
    hold_out,
    read_captions,
)
from minivit.data.scenes.dataset import NUM_HELD_OUT, VALIDATION_SEED
from minivit.training.caption.data import (
    CaptionedPhotos,
    EncodedImages,
    draw_scenes,
    make_augmentation,
    mentions_sides,
)
from minivit.training.caption.model import captioner_size, make_captioner
from minivit.training.caption.report import photo_report, scene_report
from minivit.training.caption.task import CaptionTask
from minivit.training.data_digest import caption_digest, scene_digest
from minivit.training.recipes import CaptionRecipe
from minivit.training.task import Bar, Plan

AXES = ("Loss of a word", "right words (%)")  # of the curves


def plan_captioner(recipe: CaptionRecipe, bar: Bar) -> Plan:
    """Captioner, data and report of a run.

    Args:
        recipe: Recipe of the run.
        bar: Progress bar of drawing and captioning.

    Raises:
        ValueError: Data, weights or a vocabulary that cannot be used; see `make_captioner` and
            `minivit.data.captions.dataset.read_captions`.
    """
    captioner = make_captioner(recipe)
    plan = plan_scenes if recipe.data == "scenes" else plan_photos
    return plan(captioner, recipe, bar)


# ---- the data ------------------------------------------------------------------------------------


def plan_scenes(captioner: Captioner, recipe: CaptionRecipe, bar: Bar) -> Plan:
    """Scenes with their captions, drawn into memory."""
    draw = partial(draw_scenes, captioner, workers=recipe.workers, bar=bar)
    number, captions = recipe.num_training_scenes(), recipe.captions_per_scene
    train = draw("training scenes", recipe.seed, number, num_captions=captions)
    validation = draw("validation scenes", VALIDATION_SEED, NUM_HELD_OUT)
    stays = recipe.backbone_lr == 0
    return Plan(
        task=CaptionTask(captioner, backbone_lr=recipe.backbone_lr),
        train=EncodedImages(train, captioner) if stays else train,
        validation=EncodedImages(validation, captioner) if stays else validation,
        digest=scene_digest(
            "words of the vocabulary",
            captioner.tokenizer.vocabulary,
            train=(train.images, train.tokens[:, 0]),
            validation=(validation.images, validation.tokens[:, 0]),
        ),
        lines=[
            f"{number:,} scenes, {'a caption' if captions == 1 else f'{captions} captions'} each",
            captioner_size(captioner),
        ],
        axes=AXES,
        report=partial(scene_report, num_scenes=NUM_HELD_OUT),
        report_seconds=8.0,  # scenes are drawn; of 21 on a core of an EPYC (Zen 5)
        report_validations=3.0,
    )


def plan_photos(captioner: Captioner, recipe: CaptionRecipe, bar: Bar) -> Plan:
    """COCO captions, Flickr8k or a CSV; where there is no validation split, a tenth is held out.

    Raises:
        ValueError: See `minivit.data.captions.dataset.read_captions`, for both splits.
    """
    location = Path(recipe.data)
    train = read_captions(location, "train", skip_missing=recipe.skip_missing)
    note = ""
    try:
        validation = read_captions(location, "val", skip_missing=recipe.skip_missing)
    except NoSplitError:
        train, validation = hold_out(train, 0.1, recipe.seed)
        note = f"; no validation split: {len(validation.pictures):,} photos held out"
    if recipe.limit:
        train = CaptionSet(train.pictures[: recipe.limit], train.description)
        note += f"; the first {len(train.pictures):,} photos"
    sides = mentions_sides(train)
    if recipe.augment and sides:
        note += f"; no flips and quarter turns: {sides:,} captions say left or right"
    plain = make_augmentation(captioner.preprocess)
    augmentation = plain
    if recipe.augment:
        augmentation = make_augmentation(captioner.preprocess, colours=True, turns=not sides)
    length = captioner.config.max_length + 1
    make = partial(CaptionDataset, tokenizer=captioner.tokenizer, max_length=length)
    data = make(train, transform=augmentation, seed=recipe.seed)
    collate = partial(collate_captions, pad_id=captioner.tokenizer.pad_id)
    return Plan(
        task=CaptionTask(captioner, backbone_lr=recipe.backbone_lr),
        train=CaptionedPhotos(data, collate, recipe.workers),
        validation=CaptionedPhotos(make(validation, transform=plain), collate, recipe.workers),
        digest=caption_digest(
            captioner.tokenizer.vocabulary,
            folder=location if location.is_dir() else location.parent,
            train=train,
            validation=validation,
        ),
        lines=[data.description + note, captioner_size(captioner)],
        axes=AXES,
        report=partial(photo_report, validation=validation, bar=bar),
        evaluation_batch=recipe.batch_size,
        report_validations=4.0,  # captions are written word by word
    )
