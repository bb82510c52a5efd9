"""The parts of `train.py evaluate`: the answers of a checkpoint for scenes or photos.

Every sample counts once; the figures do not depend on batches or worker processes beyond the last
bits of a logit, and are the same each time.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minivit.checkpoint import load_model
from minivit.data.errors import BadDataError, shown
from minivit.data.photos.class_names import (
    NUMBERS,
    ORDER_OF_FOLDERS,
    folder_order,
    names_labels_only,
    names_of_classes,
)
from minivit.data.photos.dataset import LOST
from minivit.data.photos.layouts import class_folder
from minivit.data.photos.splits import (
    class_names_in,
    read_labelled,
    read_unlabelled,
    recognise,
)
from minivit.data.scenes.dataset import CLASS_NAMES, NUM_HELD_OUT, TEST_SEED
from minivit.data.text_files import Split
from minivit.files import refuse_inputs
from minivit.plain_text import visible
from minivit.preprocess import BadImageError, check_image
from minivit.training.classify.data import PhotoData, draw_scenes, plain_photos
from minivit.training.classify.predictions import (
    growing_predictions,
    predict,
    predict_all,
)
from minivit.training.classify.report import DIFFICULTIES
from minivit.training.classify.scores import class_scores, summary
from minivit.training.task import Bar, consecutive
from minivit.vit import VisionTransformer

_ADVICE = "choose another --predictions"


def evaluate_scenes(
    weights: Path,
    *,
    limit: int | None = None,
    bf16: bool = False,
    workers: int = 0,
    device: torch.device,
    bar: Bar,
) -> list[str]:
    """Held-out accuracy on both difficulties.

    Args:
        weights: Checkpoint of a classifier of scenes.
        limit: Number of scenes of each difficulty; None: as many as training reports on.
        bf16: Whether matrix products are computed in bfloat16.
        workers: Processes that draw.
        device: Device of the model.
        bar: Progress bar of the drawing.

    Returns:
        Lines for the user.

    Raises:
        ValueError: A model of other classes.
    """
    model = load_model(weights, device=device, expected=VisionTransformer)
    if model.labels != CLASS_NAMES:
        raise ValueError(
            f"{weights}: a model of other classes than the {len(CLASS_NAMES)} of scenes; "
            "photos are named with --data DIR"
        )
    draw = partial(draw_scenes, model, workers=workers, bar=bar)
    lines = []
    for difficulty in DIFFICULTIES:
        name = f"{difficulty} test scenes"
        test = draw(name, TEST_SEED, limit or NUM_HELD_OUT, difficulty)
        scores = class_scores(*predict_all(model, test, device=device, bf16=bf16))
        lines.append(f"{len(test):,} {name}: {summary(scores)}")
    return lines


def evaluate_photos(
    weights: Path,
    location: Path,
    *,
    labels: str | None = None,
    split: Split | None = None,
    limit: int | None = None,
    strict: bool = False,
    predictions: Path | None = None,
    batch_size: int = 8,
    bf16: bool = False,
    workers: int = 0,
    device: torch.device,
    bar: Bar,
) -> tuple[list[str], list[str]]:
    """The answers of a checkpoint for photos, and its accuracy where they have labels.

    Args:
        weights: Checkpoint of a classifier.
        location: Place of the photos.
        labels: Source of the names of the classes, see `names_of_classes`; None: the weights.
        split: Part of the data to use; None: the last there is.
        limit: Number of photos to use; None: all.
        strict: Stop at the first photo that cannot be read.
        predictions: CSV file that is written with the answers, or None.
        batch_size: Photos at once.
        bf16: Whether matrix products are computed in bfloat16.
        workers: Processes that open photos.
        device: Device of the model.
        bar: Progress bar of the check of photos, then of their answers.

    Returns:
        Lines for the user; and "path: reason" of each photo that cannot be read.

    Raises:
        ValueError: Data or names that cannot be used; a model without classes; no file for
            predictions, and no labels or nobody who says which output means which class.
    """
    if predictions:
        inputs: list[str | Path] = [weights, *([labels] if labels else [])]
        if predictions.suffix.lower() != ".csv" or location.is_file():
            inputs.append(location)  # a CSV file within a folder of photos is none of them
        refuse_inputs([predictions], inputs, advice=_ADVICE)
    model = load_model(weights, device=device, expected=VisionTransformer)
    class_names, remarks = _class_names(model, weights, labels, location)
    labelled = recognise(location) != "flat"
    if labelled:
        written = model.data_labels if not labels else None
        if written and not set(class_names_in(location)) <= set(written):
            written = None  # the photos are labelled by names, as those of another set may be
        photos = read_labelled(
            location,
            written or class_names,
            split=split,
            strict=strict,
            workers=workers,
            bar=bar,
            labels=labels if labels and names_labels_only(labels) else "",
        )
    else:
        photos = read_unlabelled(location, strict=strict, workers=workers, bar=bar)
    photos = photos.first(limit or 0)
    if not photos.labels and not predictions:
        if labelled:
            raise ValueError(f"{remarks[-1]}; or give --predictions OUT.csv for the numbers")
        problem = f"{photos.description}, without labels"
        raise BadDataError.about(location, problem, "give --predictions OUT.csv for the answers")
    # Answers are in the words of the training data, which whoever labelled it can read.
    answers = class_names if labels else (model.data_labels or class_names)
    start, on_batch = time.perf_counter(), bar("classifying", len(photos))
    data = PhotoData(plain_photos(photos, model.preprocess, stops=False), workers)
    with contextlib.ExitStack() as files:
        write = None
        if predictions:
            refuse_inputs([predictions], photos.paths, advice=_ADVICE)
            write = files.enter_context(growing_predictions(predictions))
        logits, truth = predict(
            model,
            data.load(0, consecutive(range(len(photos)), batch_size)),
            device=device,
            bf16=bf16,
            on_batch=on_batch,
            on_logits=write and partial(_write_answers, write, iter(photos.names), answers),
            count=len(photos),
        )
        kept = truth != LOST
        if not kept.any():
            raise BadDataError.about(location, "all photos went away", "put them back")
    seconds = time.perf_counter() - start
    lines = [photos.description, *remarks]
    logits, truth = logits[kept], truth[kept]
    if photos.labels and class_names:
        lines += _scores(logits, truth, class_names)
    if predictions:
        lines.append(f"{int(kept.sum()):,} answers: {predictions}")
    lines.append(f"{len(photos) / seconds:.1f} photos a second, {seconds:.1f} s")
    lost = itertools.compress(photos.paths, (~kept).tolist()) if photos.paths else ()
    return lines, [*photos.unreadable, *map(_why_lost, lost)]


def _why_lost(path: Path) -> str:
    """ "path: reason" of a photo that could be opened when it was checked, and later not."""
    try:
        check_image(path)
    except BadImageError as error:
        return str(error)
    return f"{shown(path)}: could not be opened for a while; run this once more"


def _write_answers(
    write: Callable[[Sequence[str], Sequence[str]], None],
    names: Iterator[str],
    words: Sequence[str] | None,
    logits: Tensor,
    labels: Tensor,
) -> None:
    """Writes the answers for the next photos, whose logits are (photos, classes), but the lost."""
    kept = (labels != LOST).tolist()
    numbers = itertools.compress(logits.argmax(dim=1).tolist(), kept)
    answers = [words[number] if words else str(number) for number in numbers]
    write(list(itertools.compress(itertools.islice(names, len(kept)), kept)), answers)


def _class_names(
    model: VisionTransformer, weights: Path, labels: str | None, location: Path
) -> tuple[tuple[str, ...] | None, list[str]]:
    """What the outputs of a model mean, or None where nobody says it; and lines for the user."""
    count = model.config.num_classes
    if not count:
        raise ValueError(
            f"{weights}: a model without a head, which tells no classes; train one that starts "
            "from it, with train.py classify --weights"
        )
    if labels is None or (model.labels and names_labels_only(labels)):
        return model.labels, [] if model.labels else [_nameless(weights, count, location)]
    names = names_of_classes(labels, location=location, num_classes=count)
    if model.labels is None or model.labels == names:
        return names, []
    number = next(n for n in range(count) if names[n] != model.labels[n])
    return names, [
        f"--labels {labels} is used against the weights' own names: output {number} is "
        f"{names[number]!r}, the weights say {model.labels[number]!r}"
    ]


def _nameless(weights: Path, count: int, location: Path) -> str:
    """One line about weights without names: what is written, what is not, what to give."""
    numbers = f"{weights}: the weights name no classes, the answers are numbers, 0 to {count - 1}"
    ways = ["--labels FILE (a name a line, in the order of the outputs)"]
    layout = recognise(location)
    if layout == "flat":
        ways.append("--labels FOLDER (class folders in torchvision's order, 1, 10, 2)")
        return f"{numbers}; to have names, give {' or '.join(ways)}"
    names = class_names_in(location)
    if layout == "classes":
        order = folder_order(class_folder(location))
        if len(order) == count:
            ways.append(f"--labels {ORDER_OF_FOLDERS} (torchvision's order: {_few(order)})")
    if set(names) <= {str(number) for number in range(count)}:
        ways.append(f"--labels {NUMBERS} (output n means class n)")
    classes = f"the data's {len(names)} classes ({_few(names)})"
    return f"{numbers}, and no accuracy is known for {classes}; give {' or '.join(ways)}"


def _few(names: Sequence[str]) -> str:
    """The first names, in their order."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _scores(logits: Tensor, truth: Tensor, class_names: tuple[str, ...]) -> list[str]:
    """The figures of all photos, then a line for each class."""
    scores = class_scores(logits, truth)
    class_names = tuple(map(visible, class_names))
    width = max(map(len, class_names))
    lines = [f"{len(truth):,} photos: {summary(scores)}"]
    for name, right, count in zip(
        class_names, scores.per_class.tolist(), scores.count.tolist(), strict=True
    ):
        if count:
            lines.append(f"  {name.ljust(width)}  {100 * right:6.2f} % of {count:,}")
    return lines
