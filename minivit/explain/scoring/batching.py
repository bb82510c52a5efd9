"""Pictures of a data set in batches, as methods of explanation take them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.data.photos.masks import Cells
from minivit.explain.conditions import fixed
from minivit.explain.scoring.examples import Example
from minivit.vit import VisionTransformer

Methods = Mapping[str, Callable[..., Tensor]]
"""Functions that make maps, by name; see `minivit.explain.methods.Method`."""


class Batch(NamedTuple):
    """Pictures of one size.

    Attributes:
        numbers: Numbers of the pictures in the data.
        images: (B, C, height, width).
        cells: Where the objects are, each (B, rows, cols); None where that is not known.
    """

    numbers: list[int]
    images: Tensor
    cells: Cells | None


def batches(data: Sequence[Example], numbers: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """Examples of these numbers in order; where the size of the pictures changes, a batch ends."""
    waiting: dict[int, Example] = {}
    for number in numbers:
        example = data[number]
        sizes = {each.image.shape for each in waiting.values()} or {example.image.shape}
        if len(waiting) == batch_size or example.image.shape not in sizes:
            yield _stack(waiting)
            waiting = {}
        waiting[number] = example
    if waiting:
        yield _stack(waiting)


def _stack(examples: Mapping[int, Example]) -> Batch:
    images = torch.stack([example.image for example in examples.values()])
    cells = [example.cells for example in examples.values() if example.cells is not None]
    if not cells:
        return Batch(list(examples), images, None)
    if len(cells) < len(examples):
        raise ValueError(
            f"{len(cells)} of {len(examples)} examples have cells: give them to all or to none"
        )
    shares, known = zip(*cells, strict=True)
    return Batch(list(examples), images, Cells(torch.stack(shares), torch.stack(known)))


def maps_of(
    method: Callable[..., Tensor],
    model: VisionTransformer,
    batch: Batch,
    target: Tensor | None,
    seed: int,
) -> Tensor:
    """Maps of a batch, (B, rows, cols), on the CPU; a method that takes a seed gets this one.

    What such a method draws has to hang on the seed and the picture alone, and not on the batch.

    Raises:
        ValueError: The maps are of another shape, or have values that are no finite numbers.
    """
    options = {"seed": seed} if "seed" in inspect.signature(method).parameters else {}
    maps = method(model, batch.images.to(device_of(model)), target, **options).detach().cpu()
    shape = (len(batch.images), *model.patch_embed.grid_for(*batch.images.shape[-2:]))
    if maps.shape != shape:
        raise ValueError(f"the maps are {tuple(maps.shape)}, expected (B, rows, cols) = {shape}")
    if not maps.isfinite().all():
        raise ValueError(
            f"maps of pictures {batch.numbers[0]} to {batch.numbers[-1]} have values that are no "
            "finite numbers, and cannot be ranked"
        )
    return maps


def predicted(model: VisionTransformer, batch: Batch) -> Tensor | None:
    """(B,) number of the class that the model predicts; None without a head."""
    if not model.config.num_classes:
        return None
    with fixed(model):
        return model(batch.images.to(device_of(model))).argmax(dim=1).cpu()


def device_of(model: VisionTransformer) -> torch.device:
    return next(model.parameters()).device
