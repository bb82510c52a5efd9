"""The logit lens: what the head would say if the model ended after each block.

nostalgebraist 2020, "interpreting GPT: the logit lens", read a language model in this way. The
final norm and the head are those of the last block, and blocks before were not trained to be read
by them: early rows may say nothing, which is not to say that these blocks knew nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.inside.parts import record
from minivit.vit import VisionTransformer


def logit_lens(model: VisionTransformer, images: Tensor) -> Tensor:
    """The head, read on the tokens before the first block and after each.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).

    Returns:
        (B, L + 1, classes); the last row is what the model gives.

    Raises:
        ValueError: No head, or one that sees the class tokens of several blocks.
    """
    if not model.config.num_classes:
        raise ValueError("the model has no head, which the logit lens would read")
    if model.config.head_blocks > 1:
        raise ValueError(
            f"the head sees {model.config.head_blocks} blocks at once (head_blocks), and the logit "
            "lens reads one: use a model whose head sees one"
        )
    with fixed(model), record(model, "embedding", "outputs") as recording:
        model.encode(images)
        depth = len(model.blocks)
        stream = [recording["embedding", 0], *(recording["outputs", i] for i in range(depth))]
        rows = [model.classify(model.norm(tokens)) for tokens in stream]
    return torch.stack(rows, dim=1)  # L + 1 of (B, classes) -> (B, L + 1, classes)
