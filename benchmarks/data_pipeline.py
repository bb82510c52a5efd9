"""From a folder of photos to the batches of an epoch: minivit beside torchvision, in turns.

    python -m benchmarks.data_pipeline FOLDER [--rounds N] [--photos N]

Needs torchvision (the `parity` extra). Both sides decode, augment as the recipes for pets do, make
tensors, normalise, and stack batches of 16: minivit by `PhotoDataset` and `load_batches`, the other
by Pillow, torchvision's v2 transforms and torch's DataLoader. A ratio is taken within a round, and
the median over rounds is printed as a Markdown table. `augmentation_speed` has the parts.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from itertools import count
from pathlib import Path

import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.augmentation_speed import BATCH, PREPROCESS, RECIPES, TO_TENSOR, measure
from minivit.data.augmentation.pipeline import Augmentation
from minivit.data.loading import load_batches
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.sets import PhotoSet
from minivit.data.photos.splits import read_photos

OURS, THEIRS = next(iter(RECIPES.values()))  # RandomResizedCrop, ColorJitter, flip, rotation


class Theirs(Dataset[tuple[Tensor, int]]):
    """As torchvision's ImageFolder makes an item."""

    def __init__(self, photos: PhotoSet) -> None:
        self.photos = photos
        self.transform = v2.Compose([*THEIRS, *TO_TENSOR])

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(self.photos.paths[index]).convert("RGB")
        return self.transform(image), self.photos.labels[index]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="labelled photos, as train.py classify takes")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--photos", type=int, default=256, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = read_photos(arguments.folder, seed=0).train
    most = slice(arguments.photos)
    photos = PhotoSet(found.paths[most], found.labels[most], found.names[most])
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow "
        f"{PIL.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{len(photos)} photos, {arguments.rounds} rounds\n"
    )
    print("| epoch | torchvision, photos/s | minivit, photos/s | time ratio | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for workers, title in ((0, "one process"), (2, "two workers")):
        measure(title, *passes(photos, workers), len(photos), arguments.rounds)


def passes(photos: PhotoSet, workers: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """One epoch, as each side does it; the last batch may be smaller."""
    loader = DataLoader(Theirs(photos), batch_size=BATCH, num_workers=workers)
    dataset = PhotoDataset(photos, Augmentation(transforms=OURS, preprocess=PREPROCESS))
    indices = range(len(photos))
    batches = [indices[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    epochs = count()

    def theirs() -> None:
        for _ in loader:
            pass

    def ours() -> None:
        dataset.set_epoch(next(epochs))
        for _ in load_batches(dataset, batches, workers=workers):
            pass

    return theirs, ours


if __name__ == "__main__":
    main()
