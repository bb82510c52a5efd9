"""What a model says of a picture of which it sees some patches only.

A Vision Transformer takes any set of tokens, so a patch is hidden by leaving its token out, after
its position was added (Jain et al. 2022, "Missingness Bias in Model Debugging", arXiv:2204.08945):
nothing has to be painted over it that is itself something to see. The model knows the place of
every patch that is kept, the order of the tokens does not matter, and fewer tokens are cheaper.

Occlusion and the curves of deletion and insertion are made of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.states import logits_of_states
from minivit.vit import VisionTransformer


def logits_of_kept(model: VisionTransformer, images: Tensor, keep: Tensor) -> Tensor:
    """The logits of pictures with chosen patches only; prefix tokens always stay.

    All pictures keep the same number of patches, so nothing is padded.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        keep: (B, K) numbers of the patches that each picture keeps, counted row by row from the
            top left, each at most once; or (K,), the same for all pictures.

    Returns:
        (B, classes); without a head the pooled features (B, D).

    Raises:
        ValueError: `keep` is of another shape or not of whole numbers; a patch does not exist or is
            named twice; or no patch is left where the model pools over patches.
    """
    with fixed(model):
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        if keep.dim() == 1:
            keep = keep.expand(len(images), -1)  # (K,) -> (B, K)
        _check(model, tokens, keep)
        return logits_of_states(model, [keep_patches(model, tokens, keep)])


def keep_patches(model: VisionTransformer, tokens: Tensor, keep: Tensor) -> Tensor:
    """The prefix tokens and the chosen patches of embedded pictures.

    Args:
        model: Model whose `embed` gave the tokens.
        tokens: (B, N, D).
        keep: (B, K) numbers of patches, as in `logits_of_kept`, which checks them.

    Returns:
        (B, prefix tokens + K, D).
    """
    num_prefix = model.num_prefix_tokens
    prefix = torch.arange(num_prefix, device=tokens.device).expand(len(tokens), -1)
    numbers = torch.cat([prefix, keep.to(tokens.device) + num_prefix], dim=1)
    return tokens.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[-1]))


def _check(model: VisionTransformer, tokens: Tensor, keep: Tensor) -> None:
    count, num_patches = len(tokens), tokens.shape[1] - model.num_prefix_tokens
    if keep.dim() != 2 or len(keep) != count:
        raise ValueError(
            f"keep is {tuple(keep.shape)}, expected (patches kept,) or ({count}, patches kept), "
            f"one row for each of {count} pictures"
        )
    if keep.is_floating_point() or keep.is_complex() or keep.dtype == torch.bool:
        raise ValueError(f"keep is {keep.dtype}, expected whole numbers: those of the patches kept")
    if not keep.shape[1]:
        if model.config.pooling != "cls":
            raise ValueError(
                "no patch is kept, and the head sees the mean over patches: keep at least one"
            )
        return
    low, high = int(keep.min()), int(keep.max())
    if low < 0 or high >= num_patches:
        raise ValueError(
            f"keep has patch {low if low < 0 else high}: choose from 0 to {num_patches - 1}"
        )
    ordered = keep.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise ValueError("keep names a patch twice in one picture: name each once")
