"""From a JPEG file to a normalised, augmented tensor: minivit beside torchvision v2, in turns.

    python -m benchmarks.augmentation_speed [FOLDER] [--rounds N] [--photos N]

Needs torchvision (the `parity` extra). Without a folder the photos are made here, 500x375 pixels as
the photos of Oxford-IIIT Pet mostly are. Every round runs every case once over all photos, in one
process; a ratio is taken within a round, and the median over rounds is printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from benchmarks.turns import take_turns
from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    RandAugment,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
)
from minivit.data.seeds import sample_rng
from minivit.preprocess import Preprocess, open_image

BATCH = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESS = Preprocess(image_size=(384, 384), mode="crop", filter="bilinear", mean=MEAN, std=STD)
TO_TENSOR = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))

RECIPES = {
    "pets: crop 384, brightness, flip, rotation": (
        (
            RandomResizedCrop(384, scale=(0.7, 1.0)),
            ColorJitter(brightness=0.3),
            RandomHorizontalFlip(),
            RandomRotation(15),
        ),
        (
            v2.RandomResizedCrop(384, scale=(0.7, 1.0)),
            v2.ColorJitter(brightness=0.3),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
        ),
    ),
    "RandAugment: crop 224, flip, 2 operations": (
        (RandomResizedCrop(224, filter="bicubic"), RandomHorizontalFlip(), RandAugment()),
        (
            v2.RandomResizedCrop(224, interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(),
        ),
    ),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="JPEG photos; default: made here")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--photos", type=int, default=64, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow "
        f"{PIL.__version__}, Python {platform.python_version()}, one process and thread, "
        f"{arguments.photos} photos, {arguments.rounds} rounds\n"
    )
    print("| recipe | torchvision, photos/s | minivit, photos/s | time ratio | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or make_photos(Path(made), arguments.photos)
        paths = sorted(folder.glob("*.jp*g"))[: arguments.photos]
        if not paths:
            parser.error(f"{folder}: no JPEG photos")
        measure("decode only", *decoders(paths), len(paths), arguments.rounds)
        for name in RECIPES:
            measure(name, *samples(name, paths), len(paths), arguments.rounds)
            title = f"{name}; batches of {BATCH}"
            measure(title, *samples(name, paths, BATCH), len(paths), arguments.rounds)


def make_photos(folder: Path, number: int) -> Path:
    """Coloured noise, coarse to fine, which takes about 87 kB as JPEG: what a photo takes."""
    rng = np.random.default_rng(0)
    for index in range(number):
        picture = np.zeros((375, 500, 3))
        for cell, weight in ((125, 60), (25, 40), (5, 20), (1, 24)):
            coarse = rng.integers(0, 256, (375 // cell, 500 // cell, 3), dtype=np.uint8)
            layer = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
            picture += (np.asarray(layer) / 127.5 - 1) * weight
        photo = Image.fromarray(np.clip(picture + 127.5, 0, 255).astype(np.uint8))
        photo.save(folder / f"{index:03}.jpg", quality=90)
    return folder


def decoders(paths: list[Path]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Opening the photos, as each side does it."""

    def theirs() -> None:
        for path in paths:
            Image.open(path).convert("RGB")

    def ours() -> None:
        for path in paths:
            open_image(path)

    return theirs, ours


def samples(
    recipe: str, paths: list[Path], batch: int = 1
) -> tuple[Callable[[], None], Callable[[], None]]:
    """One pass over the photos, as each side does it; with a batch above 1, stacked."""
    transforms, counterparts = RECIPES[recipe]
    our_transform = Augmentation(transforms=transforms, preprocess=PREPROCESS)
    their_transform = v2.Compose([*counterparts, *TO_TENSOR])
    epochs = count()

    def theirs() -> None:
        waiting = []
        for path in paths:
            waiting.append(their_transform(Image.open(path).convert("RGB")))
            if len(waiting) == batch:
                hand_over(waiting)

    def ours() -> None:
        waiting = []
        epoch = next(epochs)
        for index, path in enumerate(paths):
            waiting.append(our_transform(open_image(path), sample_rng(0, epoch, index)))
            if len(waiting) == batch:
                hand_over(waiting)

    return theirs, ours


def hand_over(waiting: list[torch.Tensor]) -> None:
    """What a loader does with a full batch; a single sample is let go as it is."""
    if len(waiting) > 1:
        torch.stack(waiting)
    waiting.clear()


def measure(
    title: str,
    theirs: Callable[[], None],
    ours: Callable[[], None],
    photos: int,
    rounds: int,
) -> None:
    """One row of the table."""
    times = take_turns({"theirs": theirs, "ours": ours}, rounds)
    pairs = zip(times["ours"], times["theirs"], strict=True)
    ratios = sorted(mine / other for mine, other in pairs)
    print(
        f"| {title} | {photos / statistics.median(times['theirs']):.0f} | "
        f"{photos / statistics.median(times['ours']):.0f} | "
        f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f} | {ratios[-1]:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
