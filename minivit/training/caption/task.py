"""Captioning as a task: a captioner and the loss of its words, by teacher forcing.

The decoder reads the true words and predicts at each the one after it; all words of a sentence are
predicted at once, since none sees a later one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.captioner import Captioner
from minivit.data.captions.dataset import CaptionBatch
from minivit.resnet import ResNet
from minivit.training.caption.data import EncodedBatch
from minivit.training.settings import Settings
from minivit.training.task import Task, normalized


class CaptionTask(Task):
    """A captioner and the cross-entropy of its words.

    Args:
        model: Captioner to train.
        backbone_lr: Highest learning rate of the backbone; 0: it stays as it is.
    """

    best_by = "loss"

    def __init__(self, model: Captioner, *, backbone_lr: float = 0.0) -> None:
        super().__init__()
        self.model: Captioner = model
        self.backbone_lr = backbone_lr

    def forward(self, batch: CaptionBatch | EncodedBatch, settings: Settings) -> Tensor:
        """(2,): the loss, twice, summed over words."""
        logits, targets = self._predict(self.model, batch)
        loss = caption_loss(logits, targets, self.model.tokenizer.pad_id, settings.label_smoothing)
        return torch.stack([loss, loss])

    def count(self, batch: CaptionBatch | EncodedBatch) -> int:
        """Number of words to predict, the end tokens among them."""
        return int((batch.tokens[:, 1:] != self.model.tokenizer.pad_id).sum())

    def measure(self, model: nn.Module, batch: CaptionBatch | EncodedBatch) -> Tensor:
        """(3,): summed loss, words that were the likeliest after the true ones before, words."""
        logits, targets = self._predict(model, batch)
        words = targets != self.model.tokenizer.pad_id
        loss = caption_loss(logits, targets, self.model.tokenizer.pad_id).double()
        right = ((logits.argmax(dim=-1) == targets) & words).sum()
        return torch.stack([loss, right.double(), words.sum().double()])

    def lr_scale(self, name: str, settings: Settings) -> float:
        """The backbone has its own rate; a ResNet's stem and first stage stay (DETR, CATR)."""
        if not name.startswith("model.backbone."):
            return 1.0
        stages = tuple(f"model.backbone.layer{number}." for number in (2, 3, 4))
        if isinstance(self.model.backbone, ResNet) and not name.startswith(stages):
            return 0.0
        return self.backbone_lr / settings.lr

    def set_mode(self, settings: Settings) -> None:
        """Train mode; a backbone that stays is in eval mode, without dropout."""
        self.train()
        if self.backbone_lr == 0:
            self.model.backbone.eval()

    def _predict(self, model: Any, batch: CaptionBatch | EncodedBatch) -> tuple[Tensor, Tensor]:
        """Logits (B, T, vocabulary) and targets (B, T), on the device of the weights."""
        device = self.model.pos_embed.device
        tokens = batch.tokens.to(device)
        if isinstance(batch, EncodedBatch):
            memory = model.encode_grid(batch.grid.to(device, self.model.pos_embed.dtype))
            return model.decode(tokens[:, :-1], memory)[0], tokens[:, 1:]
        images, mask = normalized(batch.images.to(device), self.model.preprocess), batch.image_mask
        mask = None if mask is None or bool(mask.all()) else mask.to(device)
        return model(images, tokens[:, :-1], mask), tokens[:, 1:]


def caption_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy, summed over the words, without the padding.

    CATR's own loss counts the padding as words to learn, about 90 % of its 128 targets a caption:
    most of its gradient teaches that padding follows padding.

    Args:
        logits: (B, T, vocabulary).
        targets: (B, T), `pad_id` where there is no word.
        pad_id: Id of the padding token.
        label_smoothing: Share of the target that is spread over all words.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=pad_id,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
