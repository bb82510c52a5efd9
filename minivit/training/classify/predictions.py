"""The answers of a classifier: its logits, and the CSV file that a grader or a spreadsheet reads.

::

    filename,label
    26_5064.jpg,Ragdoll
    "whatever, it is.png",pug
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from minivit.files import replacing
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
    return predict(model, loaded, device=device, bf16=bf16, on_batch=on_batch)


@torch.no_grad()
def predict(
    model: VisionTransformer,
    batches: Iterator[ImageBatch],
    *,
    device: torch.device,
    bf16: bool = False,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits of pictures.

    Args:
        model: Model; put into eval mode here.
        batches: Batches of pictures.
        device: Device of the model.
        bf16: Whether matrix products are computed in bfloat16, which is faster where the processor
            has it.
        on_batch: Function that is called with the number of pictures of each batch.

    Returns:
        Logits (n, classes) float32 and labels (n,), both on the CPU.
    """
    model.eval()
    logits, labels = [], []
    for images, truth, _ in batches:
        images = normalized(images.to(device), model.preprocess)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits.append(model(images).float().cpu())
        labels.append(truth)
        if on_batch is not None:
            on_batch(len(images))
    return torch.cat(logits), torch.cat(labels)


def write_predictions(
    path: str | os.PathLike[str], names: Sequence[str], answers: Sequence[str]
) -> None:
    """Writes a row for each photo, in order, under the header `filename,label`.

    UTF-8; lines end in a line feed; values are quoted where they need it. A value that a table
    program would compute, or that would steer a terminal, is written as `plain_text.cell` says, and
    `--data` reads it back as it was. A name that is not valid UTF-8 on disk is written byte for
    byte as it is there. The file is written whole or not at all.

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
        plain = csv.writer(file, lineterminator="\n")
        # Before Python 3.13 csv leaves a carriage return unquoted, but reads it as a line's end.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(("filename", "label"))
        for pair in zip(names, answers, strict=True):
            row = [cell(text) for text in pair]
            (quoted if "\r" in "".join(row) else plain).writerow(row)
