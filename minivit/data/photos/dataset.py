"""Labelled photos as tensors: opened when they are asked for, augmented anew in each epoch.

    x = transform(open_image(path), sample_rng(seed, epoch, index))

A sample depends on these numbers and on nothing else: the order of loading and the number of
workers change no bit. `minivit.data.photos.splits` says where the photos and their labels come
from, `minivit.data.loading.load_batches` makes batches of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minivit.data.augmentation.pipeline import sample_rng
from minivit.data.errors import shown
from minivit.data.photos.splits import PhotoSet
from minivit.preprocess import BadImageError, open_image

UNLABELLED = -1
"""The label of photos without labels."""


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Item i is (x, label): what `transform` makes of photo i, usually (3, height, width).

    Args:
        photos: Where they are; without labels, every label is -1.
        transform: Gets the upright RGB photo and a generator seeded from (seed, epoch, index).
        seed: Of the transform, 0 or more.
    """

    def __init__(
        self,
        photos: PhotoSet,
        transform: Callable[[Image.Image, np.random.Generator], Tensor],
        *,
        seed: int = 0,
    ) -> None:
        self.transform, self.seed, self.epoch = transform, seed, 0
        self.paths = [str(path) for path in photos.paths]
        self.labels = list(photos.labels) or [UNLABELLED] * len(self.paths)

    def set_epoch(self, epoch: int) -> None:
        """Names the pass over the data, before it begins, 0 at first: each augments anew."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Item `index`.

        Raises:
            BadImageError: The photo cannot be opened or transformed; names the file.
            IndexError: No such item.
            ValueError: A negative seed, epoch or index.
        """
        image = open_image(self.paths[index])
        rng = sample_rng(self.seed, self.epoch, index)
        try:
            return self.transform(image, rng), self.labels[index]
        except BadImageError as error:
            raise BadImageError(f"{shown(self.paths[index])}: {error}") from error
