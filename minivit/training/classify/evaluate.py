"""The parts of `train.py evaluate`: what a checkpoint says of scenes or photos, and how good it is.

Every sample counts once; the figures do not depend on batches or worker processes beyond the last
bits of a logit, and are the same each time.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minivit.checkpoint import load_model
from minivit.data.errors import BadDataError
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.idx import IdxDataset, has_idx, read_idx
from minivit.data.photos.splits import PhotoSet, read_labelled, read_unlabelled, recognise
from minivit.data.scenes.dataset import CLASS_NAMES, TEST_SEED
from minivit.training.classify.plan import (
    NUM_HELD_OUT,
    draw_scenes,
    first_photos,
    make_augmentation,
    plain_photos,
)
from minivit.training.classify.predictions import write_predictions
from minivit.training.classify.report import DIFFICULTIES, describe, predict_all
from minivit.training.classify.scores import class_scores
from minivit.training.classify.task import PhotoData
from minivit.training.task import Bar
from minivit.vit import VisionTransformer


def evaluate_scenes(arguments: argparse.Namespace, device: torch.device, bar: Bar) -> list[str]:
    """Held-out accuracy on both difficulties.

    Args:
        arguments: As `minivit.commands.train_flags` parses them.
        device: Where to compute.
        bar: Shows how many scenes are drawn.

    Returns:
        Lines for the user.

    Raises:
        ValueError: A model of other classes.
    """
    model = load_model(arguments.weights, device=device, expected=VisionTransformer)
    if model.labels != CLASS_NAMES:
        raise ValueError(
            f"{arguments.weights}: a model of other classes than the {len(CLASS_NAMES)} of scenes; "
            "photos are named with --data DIR"
        )
    if arguments.predictions:
        raise ValueError("--predictions is for photos, which have names; scenes have none")
    draw = partial(draw_scenes, model, workers=arguments.workers, bar=bar)
    lines = []
    for difficulty in DIFFICULTIES:
        name = f"{difficulty} test scenes"
        test = draw(name, TEST_SEED, arguments.limit or NUM_HELD_OUT, difficulty)
        scores = class_scores(
            *predict_all(model, test, device=device, bf16=arguments.precision == "bf16")
        )
        lines.append(f"{len(test):,} {name}: {describe(scores, len(CLASS_NAMES))}")
    return lines


def evaluate_photos(
    arguments: argparse.Namespace, device: torch.device, bar: Bar
) -> tuple[list[str], list[str]]:
    """What a checkpoint says of photos, and how right it is where they have labels.

    Args:
        arguments: As `minivit.commands.train_flags` parses them.
        device: Where to compute.
        bar: Shows how many photos are checked and done.

    Returns:
        Lines for the user; and "path: reason" of each photo that cannot be read.

    Raises:
        ValueError: Data that cannot be used, or is without labels and --predictions.
    """
    model = load_model(arguments.weights, device=device, expected=VisionTransformer)
    class_names = model.labels or tuple(str(label) for label in range(model.config.num_classes))
    location = Path(arguments.data)
    plain = make_augmentation(None, model.preprocess)
    photos: PhotoDataset | IdxDataset
    complaints: list[str] = []
    if has_idx(location):
        data = read_idx(location)
        _same_classes(arguments.weights, class_names, data.class_names)
        images, labels = data.test_images[: arguments.limit], data.test_labels[: arguments.limit]
        photos, labelled = IdxDataset(images, labels, plain), True
        names, description = [f"{index}" for index in range(len(labels))], "IDX files, test part"
    else:
        labelled = recognise(location) != "flat"
        found = _read(arguments, class_names, bar, labelled=labelled)
        photos, complaints = plain_photos(found, model.preprocess), list(found.unreadable)
        names, description = list(found.names), found.description
    if not labelled and not arguments.predictions:
        raise BadDataError.about(
            location, f"{description}, without labels", "give --predictions OUT.csv for the answers"
        )
    start = time.perf_counter()
    on_batch = bar("classifying", len(photos))
    logits, truth = predict_all(
        model,
        PhotoData(photos, arguments.workers),
        device=device,
        batch_size=arguments.batch_size,
        bf16=arguments.precision == "bf16",
        on_batch=on_batch,
    )
    seconds = time.perf_counter() - start
    lines = [description]
    if labelled:
        lines += _scores(logits, truth, class_names)
    if arguments.predictions:
        said = [class_names[index] for index in logits.argmax(dim=1).tolist()]
        write_predictions(arguments.predictions, names, said)
        lines.append(f"{len(said):,} answers: {arguments.predictions}")
    lines.append(f"{len(photos) / seconds:.1f} photos a second, {seconds:.1f} s")
    return lines, complaints


def _read(
    arguments: argparse.Namespace, class_names: tuple[str, ...], bar: Bar, *, labelled: bool
) -> PhotoSet:
    if not labelled:
        found = read_unlabelled(
            arguments.data, strict=arguments.strict, workers=arguments.workers, bar=bar
        )
    else:
        found = read_labelled(
            arguments.data,
            class_names,
            split=arguments.split,
            strict=arguments.strict,
            workers=arguments.workers,
            bar=bar,
        )
    return first_photos(found, arguments.limit or 0)


def _same_classes(weights: Path, known: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if known != wanted:
        raise ValueError(
            f"{weights}: a model of other classes ({', '.join(known[:3])} …) than the data "
            f"({', '.join(wanted[:3])} …)"
        )


def _scores(logits: Tensor, truth: Tensor, class_names: tuple[str, ...]) -> list[str]:
    """The figures of all photos, and a line a class."""
    scores = class_scores(logits, truth)
    width = max(map(len, class_names))
    lines = [f"{len(truth):,} photos: {describe(scores, len(class_names))}"]
    for name, right, count in zip(
        class_names, scores.per_class.tolist(), scores.count.tolist(), strict=True
    ):
        if count:
            lines.append(f"  {name.ljust(width)}  {100 * right:6.2f} % of {count:,}")
    return lines
