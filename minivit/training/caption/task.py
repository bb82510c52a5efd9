"""Captioning as a task: teacher forcing, and the loss of the words that are there.

The decoder reads the true words and is asked at each for the one after it; all words of a sentence
are asked at once, since none sees a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.captioner import Captioner
from minivit.data.captions.dataset import CaptionBatch, CaptionDataset
from minivit.data.loading import load_batches
from minivit.resnet import ResNet
from minivit.training.settings import Settings
from minivit.training.task import Piece, Task


class CaptionTask(Task):
    """A captioner and the cross-entropy of its words.

    Args:
        model: To be trained.
        backbone_lr: Highest learning rate of the backbone; 0: it stays as it is.
    """

    best_by = "loss"

    def __init__(self, model: Captioner, *, backbone_lr: float = 0.0) -> None:
        super().__init__()
        self.model: Captioner = model
        self.backbone_lr = backbone_lr

    def forward(self, batch: CaptionBatch, settings: Settings) -> Tensor:
        """(2,): the loss, twice, summed over words."""
        logits, targets = self._ask(self.model, batch)
        loss = caption_loss(logits, targets, self.model.tokenizer.pad_id, settings.label_smoothing)
        return torch.stack([loss, loss])

    def count(self, batch: CaptionBatch) -> int:
        """Words to be said, the end tokens among them."""
        return int((batch.tokens[:, 1:] != self.model.tokenizer.pad_id).sum())

    def measure(self, model: nn.Module, batch: CaptionBatch) -> Tensor:
        """(3,): loss summed, words that were the likeliest given the true ones before, words."""
        logits, targets = self._ask(model, batch)
        words = targets != self.model.tokenizer.pad_id
        loss = caption_loss(logits, targets, self.model.tokenizer.pad_id).double()
        right = ((logits.argmax(dim=-1) == targets) & words).sum()
        return torch.stack([loss, right.double(), words.sum().double()])

    def share(self, name: str, settings: Settings) -> float:
        """The backbone has its own rate; a ResNet's stem and first stage stay (DETR, CATR)."""
        if not name.startswith("model.backbone."):
            return 1.0
        stages = tuple(f"model.backbone.layer{number}." for number in (2, 3, 4))
        if isinstance(self.model.backbone, ResNet) and not name.startswith(stages):
            return 0.0
        return self.backbone_lr / settings.lr

    def set_mode(self, settings: Settings) -> None:
        """Train mode; a backbone that stays is as it will be used: no dropout in it."""
        self.train()
        if self.backbone_lr == 0:
            self.model.backbone.eval()

    def _ask(self, model: Callable[..., Any], batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """Logits (B, T, vocabulary) and targets (B, T); uint8 pictures are normalised."""
        device = self.model.pos_embed.device
        images, tokens, mask = batch.images.to(device), batch.tokens.to(device), batch.image_mask
        if images.dtype == torch.uint8:
            images = self.model.preprocess.normalize(images)
        mask = None if mask is None or bool(mask.all()) else mask.to(device)
        return model(images, tokens[:, :-1], mask), tokens[:, 1:]


def caption_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy, summed over the words that are there.

    CATR's own loss counts the padding as words to be learned, about 90 % of its 128 targets a
    caption: most of its gradient says that padding follows padding.

    Args:
        logits: (B, T, vocabulary).
        targets: (B, T), `pad_id` where there is no word.
        pad_id: The padding token.
        label_smoothing: Share of the target that is spread over all words.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=pad_id,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures and their captions, held in memory.

    Attributes:
        images: (n, 3, height, width) uint8.
        tokens: (n, T) int64, start token first, `pad_id` after the end.
        pad_id: The padding token.
    """

    images: Tensor
    tokens: Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.tokens)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[CaptionBatch]:
        """The batches of these pieces, no longer than their longest caption."""
        for piece in pieces:
            tokens = self.tokens[piece.indices]
            longest = int((tokens != self.pad_id).sum(dim=1).max())
            yield CaptionBatch(self.images[piece.indices], None, tokens[:, :longest])


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos that are opened when they are needed, by processes beside this one.

    Attributes:
        photos: The data set, with its augmentation.
        collate: Pads items to a batch.
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
