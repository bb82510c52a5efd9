"""Do position embeddings know where they are? (arXiv:2010.11929, figure 7, centre)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from minivit.embeddings import sine_position_embedding
from minivit.vit import VisionTransformer


@torch.no_grad()
def position_similarity(model: VisionTransformer) -> Tensor:
    """Cosine similarity between the position embeddings of all pairs of patches.

    Args:
        model: Model whose position embeddings, learned or sine, are compared.

    Returns:
        (rows, cols, rows, cols): entry [r, c] is the map of how similar each place is to (r, c).
    """
    rows, cols = model.grid_size
    if model.pos_embed is None:
        position = sine_position_embedding(rows, cols, model.config.dim)
    else:
        position = model.pos_embed[0, -rows * cols :].float()  # the prefix tokens' come first
    unit = F.normalize(position, dim=-1)  # (N, D)
    return rearrange(
        unit @ unit.T, "(r1 c1) (r2 c2) -> r1 c1 r2 c2", r1=rows, r2=rows
    )  # (N, N) -> (rows, cols, rows, cols)


class PositionScores(NamedTuple):
    """How far a grid's similarities are those of a grid; means over all places.

    Attributes:
        neighbours: Share of the places whose most similar other place is one of their four
            neighbours.
        same_row: Similarity to the other places of the same row.
        same_column: Similarity to the other places of the same column.
        others: Similarity to the places of other rows and columns.
        rank_correlation: Spearman's rank correlation, over the other places, between similarity
            and nearness (minus the distance). A trained model shows a cross rather than a disc, so
            that 1 is not to be expected.
    """

    neighbours: float
    same_row: float
    same_column: float
    others: float
    rank_correlation: float

    def __str__(self) -> str:
        return (
            f"{100 * self.neighbours:.1f} % of the places are most similar to a neighbour; mean "
            f"similarity {self.same_row:.2f} in a row, {self.same_column:.2f} in a column, "
            f"{self.others:.2f} elsewhere; rank correlation with nearness "
            f"{self.rank_correlation:.2f}"
        )


def position_scores(similarity: Tensor) -> PositionScores:
    """Figures for what `viz.positions_figure` shows.

    Args:
        similarity: (rows, cols, rows, cols), from `position_similarity`.

    Raises:
        ValueError: Fewer than 2 rows or columns.
    """
    rows, cols = similarity.shape[:2]
    if min(rows, cols) < 2:
        raise ValueError(f"a grid of {rows} x {cols} has no rows and columns to compare")
    similarity = similarity.reshape(rows * cols, rows * cols)  # (rows, cols, rows, cols) -> (N, N)
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    down = (row.flatten()[:, None] - row.flatten()).abs()  # (N, N)
    right = (col.flatten()[:, None] - col.flatten()).abs()  # (N, N)
    itself = torch.eye(rows * cols, dtype=torch.bool)
    nearest = similarity.masked_fill(itself, -torch.inf).argmax(dim=1, keepdim=True)  # (N, 1)
    nearness = -(down**2 + right**2)
    correlations = [
        torch.corrcoef(torch.stack([_ranks(values[other]), _ranks(near[other])]))[0, 1]
        for values, near, other in zip(similarity, nearness, ~itself, strict=True)
    ]
    return PositionScores(
        neighbours=((down + right).gather(1, nearest) == 1).double().mean().item(),
        same_row=similarity[(down == 0) & ~itself].mean().item(),
        same_column=similarity[(right == 0) & ~itself].mean().item(),
        others=similarity[(down > 0) & (right > 0)].mean().item(),
        rank_correlation=torch.stack(correlations).mean().item(),
    )


def _ranks(values: Tensor) -> Tensor:
    """(M,) -> (M,): ranks from 0 on; equal values share the mean of theirs."""
    _, which, counts = values.unique(  # type: ignore[no-untyped-call]
        return_inverse=True, return_counts=True
    )
    last = counts.cumsum(0) - 1  # the highest rank of each value
    ranks: Tensor = (last - (counts - 1) / 2).double()
    return ranks[which]
