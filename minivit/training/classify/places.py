"""Where is the main object? A question that cannot be answered without knowing rows and columns.

Classes alone do not ask for places: a model that is told nothing else learns how far a patch is
from the border at most, and its position embeddings show rings. Two questions change that, both
about the main object's place, the mean row and column of the patches that show it, rounded:

* every patch token: how many rows and how many columns do you lie from it?
* the class token: in which row and which column is it?

The first needs positions whose differences can be told, so that neighbours come to look alike; the
second makes the class token look at the object. Rows and columns are classes: 2·rows - 1 offsets,
or rows places, each with a cross-entropy.

An offset's neighbours are half right: its target is a Gaussian of 1.5 patches. With a sharp target
the embeddings become a clock over long trainings, which tells all rows apart and has the first look
like the last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.vit import VisionTransformer

_LEFT_OUT = -100  # what cross_entropy passes over
_SIGMA = 1.5  # of an offset's target, in patches


class PlaceLoss(nn.Module):
    """The layers that answer, and the cross-entropy of their answers.

    Args:
        model: Model whose tokens are asked.

    Raises:
        ValueError: The model has no class token.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        if not model.config.class_token:
            raise ValueError("place_loss asks the class token, and the model has none: set it to 0")
        rows, cols = model.grid_size
        self.num_prefix_tokens = model.num_prefix_tokens
        self.offset_head = nn.Linear(model.config.dim, (2 * rows - 1) + (2 * cols - 1))
        self.place_head = nn.Linear(model.config.dim, rows + cols)

    def forward(self, tokens: Tensor, grid: Tensor, labels: Tensor) -> Tensor:
        """The loss of both questions, summed over pictures; that of the patches is a mean.

        A picture in which no patch shows the main object is left out.

        Args:
            tokens: (B, N, D) after the final norm.
            grid: (B, rows, cols), the class that each patch shows.
            labels: (B,), the class of the main object.
        """
        rows, cols = grid.shape[1:]
        row, col = main_place(grid, labels)  # (B,)
        offsets = self.offset_head(tokens[:, self.num_prefix_tokens :])  # (B, rows·cols, offsets)
        row_offset, col_offset = offsets.float().split([2 * rows - 1, 2 * cols - 1], dim=-1)
        row_place, col_place = self.place_head(tokens[:, 0]).float().split([rows, cols], dim=-1)

        from_row = _offsets(row, rows)[:, :, None].expand_as(grid)  # (B, rows) -> (B, rows, cols)
        from_col = _offsets(col, cols)[:, None, :].expand_as(grid)  # (B, cols) -> (B, rows, cols)
        of_patches = _soft_loss(row_offset, from_row) + _soft_loss(col_offset, from_col)
        of_class = _loss(row_place, row) + _loss(col_place, col)
        return of_patches / (2 * rows * cols) + of_class / 2


def main_place(grid: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of the main object of each picture.

    Args:
        grid: (B, rows, cols), the class that each patch shows.
        labels: (B,), the class of the main object.

    Returns:
        Two of (B,) int64: rounded means over the patches that show it; -100 where none does.
    """
    shows = (grid == labels[:, None, None]).float()  # (B, rows, cols)
    count = shows.sum(dim=(1, 2))

    def mean(along: Tensor) -> Tensor:
        places = torch.arange(along.shape[1], device=along.device)
        centre = ((along * places).sum(dim=1) / count.clamp(min=1)).round().long()
        return centre.where(count > 0, _LEFT_OUT)

    return mean(shows.sum(dim=2)), mean(shows.sum(dim=1))


def _offsets(place: Tensor, side: int) -> Tensor:
    """(B, side): the class of each row's, or column's, offset from this one; 0 is -(side - 1)."""
    places = torch.arange(side, device=place.device)
    offset = places - place[:, None] + side - 1  # (B,) -> (B, side)
    return offset.where(place[:, None] != _LEFT_OUT, _LEFT_OUT)


def _loss(answers: Tensor, target: Tensor) -> Tensor:
    """Summed cross-entropy of (…, classes) answers; targets that are left out add nothing."""
    return F.cross_entropy(answers.flatten(0, -2), target.flatten(), reduction="sum")


def _soft_loss(answers: Tensor, target: Tensor) -> Tensor:
    """The same for a target that is a Gaussian around the right class."""
    answers, target = answers.flatten(0, -2), target.flatten()
    classes = torch.arange(answers.shape[-1], device=answers.device)
    exponent = -((classes - target[:, None]) ** 2) / (2 * _SIGMA**2)  # (…, classes)
    losses = F.cross_entropy(answers, exponent.softmax(dim=-1), reduction="none")
    return losses[target != _LEFT_OUT].sum()
