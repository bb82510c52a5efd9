"""The answers of a classifier: its logits, and the CSV file that a grader or a spreadsheet reads.

::

    filename,label
    26_5064.jpg,Ragdoll
    "whatever, it is.png",pug
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from minivit.files import growing, replacing
from minivit.plain_text import cell
from minivit.training.classify.data import ImageBatch, LabelledImages, PhotoData
from minivit.training.task import consecutive, normalized
from minivit.vit import VisionTransformer


def predict_all(
    model: VisionTransformer,
    data: LabelledImages | PhotoData,
    *,
    device: torch.device,
    batch_size: int = 250,
    bf16: bool = False,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits and labels of all samples, in order; see `predict`."""
    loaded = data.load(0, consecutive(range(len(data)), batch_size))
    count = len(data)
    return predict(model, loaded, device=device, bf16=bf16, on_batch=on_batch, count=count)


def predict(
    model: VisionTransformer,
    batches: Iterator[ImageBatch],
    *,
    device: torch.device,
    bf16: bool = False,
    on_batch: Callable[[int], object] | None = None,
    on_logits: Callable[[Tensor, Tensor], object] | None = None,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits of pictures.

    Args:
        model: Model; put into eval mode here.
        batches: Batches of pictures.
        device: Device of the model.
        bf16: Whether matrix products are computed in bfloat16, which is faster where the processor
            has it.
        on_batch: Function that is called with the number of pictures of each batch.
        on_logits: Function that is called with the logits (pictures, classes) and the
            labels (pictures,) of each batch.
        count: Number of all pictures; None: as many as come.

    Returns:
        Logits (n, classes) float32 and labels (n,), both on the CPU.
    """
    model.eval()
    # Both are filled in place. A small tensor that is kept of each batch would hold a descriptor of
    # the worker's shared memory, or lie between the pixels of two batches, whose room the C library
    # could then not use again.
    logits = torch.empty(count or 0, model.config.num_classes)
    labels = torch.empty(count or 0, dtype=torch.long)
    done = 0
    for images, truth, _ in batches:
        answers = _logits(model, images.to(device), bf16=bf16)
        end = done + len(answers)
        if end > len(logits):
            more = max(end, 2 * len(logits))
            logits.resize_(more, logits.shape[1])
            labels.resize_(more)
        logits[done:end], labels[done:end] = answers, truth
        if on_logits is not None:
            on_logits(logits[done:end], labels[done:end])
        if on_batch is not None:
            on_batch(len(images))
        done = end
        del images, truth, answers  # before the next batch is made
    return logits[:done], labels[:done]


@torch.no_grad()
def _logits(model: VisionTransformer, images: Tensor, *, bf16: bool) -> Tensor:
    """(B, C, H, W) on the model's device -> (B, classes)."""
    images = normalized(images, model.preprocess)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        answers: Tensor = model(images).float()
    return answers


def write_predictions(
    path: str | os.PathLike[str], names: Sequence[str], answers: Sequence[str]
) -> None:
    """Writes a row for each photo, in order; see `growing_predictions`.

    Args:
        path: File to write; folders above it are made.
        names: Names of the photos, written as given.
        answers: Label that the model gave each photo.

    Raises:
        ValueError: Different numbers of names and labels.
        OSError: The file cannot be written.
    """
    if len(names) != len(answers):
        raise ValueError(f"{len(names)} names and {len(answers)} labels; expected as many of both")
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write = _row_writer(file)
        write([("filename", "label"), *zip(names, answers, strict=True)])


@contextlib.contextmanager
def growing_predictions(
    path: str | os.PathLike[str],
) -> Iterator[Callable[[Sequence[str], Sequence[str]], None]]:
    """A CSV file of answers that grows with each batch, under the header `filename,label`.

    UTF-8; lines end in a line feed; values are quoted where they need it. A value that a table
    program would compute, or that would steer a terminal, is written as `plain_text.cell` says, and
    `--data` reads it back as it was. A name that is not valid UTF-8 on disk is written byte for
    byte as it is there. The file gets its name once it is whole: see `minivit.files.growing`.

    Args:
        path: File to write; folders above it are made.

    Yields:
        A function of names of photos and their labels, which appends a row for each and sees to it
        that they are on their way to the disk.

    Raises:
        OSError: The file cannot be written.
        Exception: What the body raises, with a note that says where the answers so far are.
    """
    count = 0
    with growing(path) as file:
        write_rows = _row_writer(file)

        def write(names: Sequence[str], answers: Sequence[str]) -> None:
            nonlocal count
            if not names:
                return
            header = [] if count else [("filename", "label")]
            write_rows([*header, *zip(names, answers, strict=True)])
            file.flush()
            count += len(names)

        try:
            yield write
        except BaseException as error:
            if count and Path(file.name) != Path(path):
                notes = getattr(error, "__notes__", [])  # Python 3.10 has no add_note
                error.__notes__ = [*notes, f"the first {count:,} answers are in {file.name}"]
            raise


def _row_writer(file: IO[str]) -> Callable[[Iterable[tuple[str, str]]], None]:
    """A function that writes rows of CSV.

    Before Python 3.13 csv leaves a carriage return unquoted, but reads it as a line's end.
    """
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(rows: Iterable[tuple[str, str]]) -> None:
        for pair in rows:
            row = [cell(text) for text in pair]
            (quoted if "\r" in "".join(row) else plain).writerow(row)

    return write
