"""Labelled photos as tensors: opened when they are asked for, augmented anew in each epoch.

    x = transform(open_image(path), sample_rng(seed, epoch, index))

A sample depends on these numbers and on nothing else (`minivit.data.seeds`): the order of loading
and the number of workers change no bit. `minivit.data.photos.splits` reads the photos and their
labels, `minivit.data.loading.load_batches` makes batches of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minivit.data.errors import shown
from minivit.data.photos.splits import PhotoSet
from minivit.data.seeds import sample_rng
from minivit.preprocess import BadImageError, open_image, to_rgb

UNLABELLED = -1
"""The label of photos without labels."""
LOST = -2
"""The label of a photo that could not be opened, where somebody asked not to be stopped by it."""


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Item i is (x, label): what `transform` makes of photo i, usually (3, height, width).

    Args:
        photos: Photos in files or in memory; without labels, every label is -1.
        transform: Called with the upright RGB photo and a generator seeded from
            (seed, epoch, index).
        seed: Seed for the transform, 0 or more.
        stops: Whether a photo that cannot be opened raises; False: a grey picture with the label
            `LOST` stands in its place. Photos are checked before, but one may go away meanwhile.
    """

    def __init__(
        self,
        photos: PhotoSet,
        transform: Callable[[Image.Image, np.random.Generator], Tensor],
        *,
        seed: int = 0,
        stops: bool = True,
    ) -> None:
        self.transform, self.seed, self.epoch, self.stops = transform, seed, 0, stops
        self.paths = [str(path) for path in photos.paths]
        self.pixels = photos.pixels
        self.numbers = photos.names if photos.pixels is not None else ()
        self.labels = list(photos.labels) or [UNLABELLED] * len(photos)

    def set_epoch(self, epoch: int) -> None:
        """Names the pass over the data, before it begins, 0 at first: each augments anew."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def open_picture(self, index: int) -> Image.Image:
        """Photo `index` as it is: upright, RGB.

        Raises:
            BadImageError: The photo cannot be opened; names the file.
            IndexError: No such photo.
        """
        if self.pixels is not None:
            return to_rgb(Image.fromarray(self.pixels[index].numpy()))
        return open_image(self.paths[index])

    def name(self, index: int) -> str:
        """Name of photo `index` for a report: its folder and file, or its number in memory."""
        if self.pixels is not None:
            return f"picture {self.numbers[index]}"
        return "/".join(Path(self.paths[index]).parts[-2:])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Item `index`.

        Raises:
            BadImageError: The photo cannot be opened or transformed, and `stops`; names the file.
            IndexError: No such item.
            ValueError: A negative seed, epoch or index.
        """
        rng = sample_rng(self.seed, self.epoch, index)
        try:
            picture = self.open_picture(index)
        except BadImageError:
            if self.stops:
                raise
            return self.transform(Image.new("RGB", (64, 64), "grey"), rng), LOST
        try:
            return self.transform(picture, rng), self.labels[index]
        except BadImageError as error:
            place = self.paths[index] if self.paths else self.name(index)
            raise BadImageError(f"{shown(place)}: {error}") from error
