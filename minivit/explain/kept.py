"""What the model says of some patches alone: a Vision Transformer need not be shown grey squares.

A patch that is not kept is no token at all, as in a masked autoencoder's encoder
(arXiv:2111.06377). The patches that stay have the positions that they have in the whole picture,
and prefix tokens stay always.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.vit import VisionTransformer


def logits_of_kept(model: VisionTransformer, images: Tensor, keep: Tensor) -> Tensor:
    """Logits of pictures of which only chosen patch tokens are kept.

    Args:
        model: Any loaded Vision Transformer.
        images: (B, C, height, width).
        keep: (B, k) numbers of patches, row by row from 0, without prefix tokens. 0 patches are
            allowed where the head sees the class token alone.

    Returns:
        (B, classes).

    Raises:
        ValueError: No patch is kept and the head sees the mean of the patches; or no such patch.
    """
    with fixed(model):
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        prefix = model.num_prefix_tokens
        count = tokens.shape[1] - prefix
        if not keep.shape[1] and model.config.pooling != "cls":
            raise ValueError("no patch is kept, but the model's head sees the mean of the patches")
        if keep.numel() and not 0 <= int(keep.min()) <= int(keep.max()) < count:
            raise ValueError(f"keep has numbers of patches that are not 0 to {count - 1}")
        index = (keep.to(tokens.device) + prefix)[:, :, None].expand(-1, -1, tokens.shape[2])
        kept = torch.cat([tokens[:, :prefix], tokens.gather(1, index)], dim=1)  # (B, P + k, D)
        kept, _, class_tokens = model._run_blocks(kept, images.shape[-2:], False)
        return model.classify(model.norm(kept), class_tokens)  # (B, P + k, D) -> (B, classes)
