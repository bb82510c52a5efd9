"""Classification as a task: pictures with labels, and the losses that they give.

Loss: cross-entropy of the class; and, where the data says what each patch shows, cross-entropy of
every patch token too (token labelling: Jiang et al. 2021, arXiv:2104.10858, equation 2). The layer
that reads the patch tokens is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.data.augmentation.pipeline import CutMix, MixUp, sample_rng
from minivit.data.loading import load_batches
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.idx import IdxDataset
from minivit.training.optimizers import layer_share
from minivit.training.settings import Settings
from minivit.training.task import Piece, Task
from minivit.vit import VisionTransformer


class ImageBatch(NamedTuple):
    """Pictures and what they show.

    Attributes:
        images: (B, 3, height, width): uint8, or floats that are normalised.
        labels: (B,) classes, or (B, classes) probabilities.
        grid: (B, rows, cols) int64, what each patch shows; or None.
    """

    images: Tensor
    labels: Tensor
    grid: Tensor | None = None


class ClassificationTask(Task):
    """A ViT and its cross-entropy.

    Args:
        model: To be trained.
        num_patch_classes: Classes of the patches in the data; 0: patches are not asked.
        token_loss: Weight of their loss.
    """

    best_by = "accuracy"

    def __init__(
        self, model: VisionTransformer, *, num_patch_classes: int = 0, token_loss: float = 1.0
    ) -> None:
        super().__init__()
        self.model: VisionTransformer = model
        self.token_loss = token_loss
        asked = num_patch_classes > 0 and token_loss > 0
        self.patch_head = nn.Linear(model.config.dim, num_patch_classes) if asked else None

    def forward(self, batch: ImageBatch, settings: Settings) -> Tensor:
        """(2,): class loss and patch loss together, and the class loss alone, summed."""
        images, labels, grid = self._place(batch)
        if self.patch_head is None or grid is None:
            logits = self.model(images)
        else:
            tokens = self.model.encode(images)  # (B, N, D)
            logits = self.model.classify(tokens)
        class_loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=settings.label_smoothing, reduction="sum"
        )
        if self.patch_head is None or grid is None:
            return torch.stack([class_loss, class_loss])
        shown = self.patch_head(tokens[:, self.model.num_prefix_tokens :])  # (B, N, classes)
        patch_loss = F.cross_entropy(shown.float().flatten(0, 1), grid.flatten(), reduction="sum")
        per_picture = patch_loss / grid[0].numel()
        return torch.stack([class_loss + self.token_loss * per_picture, class_loss])

    def count(self, batch: ImageBatch) -> int:
        """Pictures."""
        return len(batch.images)

    def measure(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """(3,): cross-entropy summed, right answers, pictures."""
        images, labels, _ = self._place(batch)
        logits = model(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        right = (logits.argmax(dim=1) == labels).sum()
        return torch.stack([loss, right.double(), loss.new_tensor(len(images))])

    def share(self, name: str, settings: Settings) -> float:
        """Rates fall from the head to the embedding; with train="head" only the head moves."""
        if settings.train == "head":
            return float(name.startswith(("model.head.", "model.head_dist.")))
        return layer_share(name, self.model.config.depth, settings.layer_decay)

    def set_mode(self, settings: Settings) -> None:
        """Train mode; where only the head moves, the rest is as it will be used."""
        self.train(settings.train == "all")

    def _place(self, batch: ImageBatch) -> ImageBatch:
        """The batch where the weights are; whole numbers are normalised."""
        device = self.model.patch_embed.proj.weight.device
        images, labels, grid = batch
        images, labels = images.to(device), labels.to(device)
        if images.dtype == torch.uint8:
            images = self.model.preprocess.normalize(images)
        return ImageBatch(images, labels, None if grid is None else grid.to(device))


# ---- in memory -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledImages:
    """Samples held in memory.

    Attributes:
        images: (n, 3, height, width) uint8.
        labels: (n,) int64.
        patch_labels: (n, rows, cols) int64, what each patch shows; or None.
        turned: Each step lays its pictures in one of eight ways, drawn from (seed, step): for
            square pictures that keep their label when they are turned or mirrored.
        seed: Of these.
    """

    images: Tensor
    labels: Tensor
    patch_labels: Tensor | None = None
    turned: bool = False
    seed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[ImageBatch]:
        """The batches of these pieces."""
        for piece in pieces:
            images, labels = self.images[piece.indices], self.labels[piece.indices]
            grid = None if self.patch_labels is None else self.patch_labels[piece.indices]
            if self.turned:
                which = int(sample_rng(self.seed, epoch, piece.step).integers(8))
                images, grid = turn(images, grid, which)
            yield ImageBatch(images, labels, grid)


def turn(images: Tensor, grid: Tensor | None, which: int) -> tuple[Tensor, Tensor | None]:
    """One of the eight ways to lay a square picture, the same for pictures and patch labels.

    Args:
        images: (B, 3, side, side).
        grid: (B, rows, cols) or None.
        which: 0 to 7: quarter turns, and a mirror image from 4 on.
    """
    images = torch.rot90(images, which % 4, (2, 3))
    grid = None if grid is None else torch.rot90(grid, which % 4, (1, 2))
    if which >= 4:
        images, grid = images.flip(3), None if grid is None else grid.flip(2)
    return images, grid


# ---- on disk -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhotoData:
    """Photos that are opened when they are needed, by processes beside this one.

    Attributes:
        photos: The data set, with its augmentation.
        workers: Processes that open and augment; 0: this one.
        mixing: One of these is applied to each step, drawn from (seed, step); none: no mixing.
        seed: Of the mixing.
    """

    photos: PhotoDataset | IdxDataset
    workers: int = 0
    mixing: tuple[MixUp | CutMix, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.photos)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[ImageBatch]:
        """The batches of these pieces."""
        self.photos.set_epoch(epoch)
        chosen = [piece.indices for piece in pieces]
        loaded = load_batches(self.photos, chosen, workers=self.workers, collate=collate_photos)
        for piece, (images, labels) in zip(pieces, loaded, strict=True):
            if self.mixing:
                rng = sample_rng(self.seed, epoch, piece.step)
                mix = self.mixing[int(rng.integers(len(self.mixing)))]
                images, labels = mix(images, labels, rng)
            yield ImageBatch(images, labels)


def collate_photos(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Pictures of one size and their labels, stacked: (B, 3, height, width) and (B,)."""
    return torch.stack([x for x, _ in items]), torch.tensor([label for _, label in items])


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
        model: Put into eval mode here.
        batches: Of pictures.
        device: Where.
        bf16: Matrix products in bfloat16: faster where the processor has it.
        on_batch: Called with the number of pictures done.

    Returns:
        Logits (n, classes) float32 and labels (n,), both on the CPU.
    """
    model.eval()
    logits, labels = [], []
    for images, truth, _ in batches:
        images = images.to(device)
        if images.dtype == torch.uint8:
            images = model.preprocess.normalize(images)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits.append(model(images).float().cpu())
        labels.append(truth)
        if on_batch is not None:
            on_batch(len(images))
    return torch.cat(logits), torch.cat(labels)
