"""Classification as a task: a ViT and its losses.

The loss is the cross-entropy of the class; where the data says what each patch shows, cross-entropy
of every patch token is added (token labelling: Jiang et al. 2021, arXiv:2104.10858, equation 2),
and that of where the main object is (`places.py`). The layers that answer these are not saved with
the model.

Next: `minivit/training/loop.py`, epochs and steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.training.classify.data import ImageBatch
from minivit.training.classify.places import PlaceLoss
from minivit.training.optimizers import layer_lr_scale
from minivit.training.settings import Settings
from minivit.training.task import Task, normalized
from minivit.vit import VisionTransformer


class ClassificationTask(Task):
    """A ViT and its cross-entropy.

    Args:
        model: Model to train.
        num_patch_classes: Number of classes of the patches in the data; 0: no patch labels.
        token_loss: Weight of the loss of what the patches show.
        place_loss: Weight of the loss of where the main object is.
    """

    best_by = "accuracy"

    def __init__(
        self,
        model: VisionTransformer,
        *,
        num_patch_classes: int = 0,
        token_loss: float = 1.0,
        place_loss: float = 0.0,
    ) -> None:
        super().__init__()
        self.model: VisionTransformer = model
        self.token_loss, self.place_loss = token_loss, place_loss
        learns_patches = num_patch_classes > 0 and token_loss > 0
        self.patch_head = nn.Linear(model.config.dim, num_patch_classes) if learns_patches else None
        learns_places = num_patch_classes > 0 and place_loss > 0
        self.places = PlaceLoss(model) if learns_places else None

    def forward(self, batch: ImageBatch, settings: Settings) -> Tensor:
        """(2,): sums of all losses together, and of the class loss alone."""
        images, labels, grid = self._place(batch)
        if grid is None or (self.patch_head is None and self.places is None):
            logits = self.model(images)
        else:
            tokens = self.model.encode(images)  # (B, N, D)
            logits = self.model.classify(tokens)
        loss = class_loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=settings.label_smoothing, reduction="sum"
        )
        if grid is not None and self.patch_head is not None:
            shown = self.patch_head(tokens[:, self.model.num_prefix_tokens :])  # (B, N, classes)
            summed = F.cross_entropy(shown.float().flatten(0, 1), grid.flatten(), reduction="sum")
            loss = loss + self.token_loss * summed / grid[0].numel()
        if grid is not None and self.places is not None:
            loss = loss + self.place_loss * self.places(tokens, grid, labels)
        return torch.stack([loss, class_loss])

    def count(self, batch: ImageBatch) -> int:
        """Number of pictures."""
        return len(batch.images)

    def measure(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """(3,): summed cross-entropy, right answers, pictures."""
        images, labels, _ = self._place(batch)
        logits = model(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        right = (logits.argmax(dim=1) == labels).sum()
        return torch.stack([loss, right.double(), loss.new_tensor(len(images))])

    def lr_scale(self, name: str, settings: Settings) -> float:
        """Rates fall from the head to the embedding; with trainable="head" only the head moves."""
        if settings.trainable == "head":
            return float(name.startswith(("model.head.", "model.head_dist.")))
        return layer_lr_scale(name, self.model.config.depth, settings.layer_decay)

    def set_mode(self, settings: Settings) -> None:
        """Train mode; where only the head moves, the rest is as it will be used."""
        self.train(settings.trainable == "all")

    def _place(self, batch: ImageBatch) -> ImageBatch:
        """The batch on the device of the weights, with normalised pictures."""
        device = self.model.patch_embed.proj.weight.device
        images, labels, grid = batch
        images = normalized(images.to(device), self.model.preprocess)
        return ImageBatch(images, labels.to(device), None if grid is None else grid.to(device))
