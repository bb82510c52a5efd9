"""Where attention goes: to the class token, to registers, to the picture.

A map shows what goes to patches and is silent about the rest. Where most of a row goes to a
register or back to the class token, the map is of what is left (arXiv:2309.16588 adds registers for
this very purpose).
"""

from __future__ import annotations

from torch import Tensor

from minivit.explain.describe.walk import measure_attention
from minivit.vit import VisionTransformer


def token_kinds(model: VisionTransformer) -> dict[str, slice]:
    """The kinds of tokens that a model has, in their order, and which tokens they are.

    The names are "class", "distillation", "registers" and "patches".
    """
    config = model.config
    counts = {
        "class": int(config.class_token),
        "distillation": int(config.distillation_token),
        "registers": config.num_register_tokens,
    }
    kinds, start = {}, 0
    for name, count in counts.items():
        if count:
            kinds[name] = slice(start, start + count)
            start += count
    return kinds | {"patches": slice(start, None)}


def mass_by_kind(
    model: VisionTransformer, images: Tensor, *, looking: str = "class"
) -> dict[str, Tensor]:
    """What tokens of one kind give to each kind of tokens, in each head of each block.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        looking: Kind of the tokens that look, one of `token_kinds`; the mean over them is given.

    Returns:
        For each kind that the model has, (B, blocks, H); over all kinds they sum to 1.

    Raises:
        ValueError: The model has no tokens of the kind that is to look.
    """
    kinds = token_kinds(model)
    if looking not in kinds:
        raise ValueError(f"looking is {looking!r}: this model has {', '.join(kinds)}")
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    length = model.num_prefix_tokens + grid[0] * grid[1]
    rows = range(length)[kinds[looking]]
    mean = measure_attention(model, images, _mean_row, rows=rows)  # (B, blocks, H, N)
    return {name: mean[..., tokens].sum(dim=-1) for name, tokens in kinds.items()}


def _mean_row(weights: Tensor) -> Tensor:
    """(B, H, rows, N) to (B, H, N)."""
    return weights.mean(dim=2)
