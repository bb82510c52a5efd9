"""Samples of a captioner: scenes in memory, photos on disk, and what is done to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.captioner import Captioner
from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    Resize,
)
from minivit.data.captions.dataset import CaptionBatch, CaptionDataset, CaptionSet, SceneCaptions
from minivit.data.loading import load_all, load_batches
from minivit.preprocess import Preprocess
from minivit.training.task import Bar, Piece, normalized

# ---- in memory -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures and their captions, in memory.

    Attributes:
        images: (n, 3, height, width) uint8.
        tokens: K captions each, (n, K, T) int64, start token first, `pad_id` after the end.
        pad_id: Id of the padding token.
    """

    images: Tensor
    tokens: Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.tokens)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[CaptionBatch]:
        """The batches of these pieces, no longer than their longest caption.

        Each epoch has the next of the captions of a picture.
        """
        for piece in pieces:
            tokens = self.tokens[piece.indices, epoch % self.tokens.shape[1]]  # (B, T)
            longest = int((tokens != self.pad_id).sum(dim=1).max())
            yield CaptionBatch(self.images[piece.indices], None, tokens[:, :longest])


class EncodedBatch(NamedTuple):
    """What the backbone made of pictures, and their captions.

    Attributes:
        grid: Grid of features (B, rows, cols, C), see `Captioner.backbone_grid`.
        tokens: Ids (B, T) int64, the padding token after the end.
    """

    grid: Tensor
    tokens: Tensor


class EncodedImages:
    """Pictures in memory, each of which a backbone that stays as it is sees once.

    The grids are kept as float16, which rounds to 11 bits; later passes cost no backbone.

    Args:
        samples: Pictures, all of one size, and captions.
        captioner: Captioner whose backbone does not learn.
    """

    def __init__(self, samples: CaptionedImages, captioner: Captioner) -> None:
        self.samples = samples
        self.captioner = captioner
        self.grids: Tensor | None = None  # (n, rows, cols, C) float16; the first batch says how big
        self.is_encoded = torch.zeros(len(samples), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.samples)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[EncodedBatch]:
        """The batches of these pieces; pictures that were not seen before go through the backbone.

        The backbone computes in eval mode, in its own precision.
        """
        for piece, batch in zip(pieces, self.samples.load(epoch, pieces), strict=True):
            yield EncodedBatch(self._grids(piece.indices, batch.images), batch.tokens)

    @torch.no_grad()
    def _grids(self, indices: Sequence[int], images: Tensor) -> Tensor:
        numbers = torch.tensor(indices)
        new = ~self.is_encoded[numbers]
        if new.any():
            backbone, device = self.captioner.backbone, self.captioner.pos_embed.device
            was_training = backbone.training
            backbone.eval()
            pixels = normalized(images[new].to(device), self.captioner.preprocess)
            grids = self.captioner.backbone_grid(pixels).half().cpu()
            backbone.train(was_training)
            if self.grids is None:
                self.grids = grids.new_empty(len(self), *grids.shape[1:])
            self.grids[numbers[new]] = grids
            self.is_encoded[numbers[new]] = True
        assert self.grids is not None
        return self.grids[numbers]


def draw_scenes(
    captioner: Captioner,
    name: str,
    seed: int,
    length: int,
    *,
    num_captions: int = 1,
    workers: int,
    bar: Bar,
) -> CaptionedImages:
    """Draws scenes of the size that a captioner takes, with their captions, into memory.

    Args:
        captioner: Captioner whose picture size and words the samples get.
        name: Title of the bar.
        seed: Seed of the scenes.
        length: Number of scenes.
        num_captions: Number of captions of each scene.
        workers: Processes that draw.
        bar: Progress bar of the drawing.
    """
    tokenizer, size = captioner.tokenizer, captioner.preprocess.image_size
    scenes = SceneCaptions(seed, length, tokenizer, image_size=size, num_captions=num_captions)
    images, tokens = load_all(scenes, workers=workers, on_batch=bar(name, length))
    return CaptionedImages(images, tokens, tokenizer.pad_id)


# ---- on disk -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos that are opened when they are needed, by processes beside this one.

    Attributes:
        photos: Data set with its augmentation.
        collate: Function that pads items to a batch.
        workers: Processes that open and augment; 0: this one.
    """

    photos: CaptionDataset
    collate: Callable[[Sequence[tuple[Tensor, Tensor]]], CaptionBatch]
    workers: int = 0

    def __len__(self) -> int:
        return len(self.photos)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[CaptionBatch]:
        """The batches of these pieces."""
        self.photos.set_epoch(epoch)
        chosen = [piece.indices for piece in pieces]
        yield from load_batches(self.photos, chosen, workers=self.workers, collate=self.collate)


def make_augmentation(
    preprocess: Preprocess, *, colours: bool = False, turns: bool = False
) -> Augmentation:
    """CATR's augmentation, or parts of it.

    Photos are resized first: smaller pictures are faster to change, and a turn keeps the longest
    side.

    Args:
        preprocess: Size, filter and normalisation.
        colours: Whether light and colours vary.
        turns: Whether photos are turned and mirrored.
    """
    jitter = ColorJitter(brightness=(0.5, 1.3), contrast=(0.8, 1.5), saturation=(0.2, 1.5))
    return Augmentation(
        transforms=(
            Resize.of(preprocess),
            *((RandomQuarterTurn(),) if turns else ()),
            *((jitter,) if colours else ()),
            *((RandomHorizontalFlip(),) if turns else ()),
        ),
        preprocess=preprocess,
    )


def mentions_sides(captions: CaptionSet) -> int:
    """Number of captions that say left or right, and would be wrong for a mirrored photo."""
    return sum(
        bool(re.search(r"\b(left|right)\b", text, re.IGNORECASE))
        for picture in captions.pictures
        for text in picture.captions
    )
