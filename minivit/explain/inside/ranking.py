"""Which heads and MLPs a class depends on: each is silenced alone, and the class asked for again.

Michel et al. 2019, "Are Sixteen Heads Really Better than One?" (arXiv:1905.10650), rank heads so.
Two parts that stand in for each other both look as if they did not matter: silence them together,
with `intervene`, before you say so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers, fixed, log_probability
from minivit.explain.inside.intervene import intervene
from minivit.explain.inside.parts import record
from minivit.explain.states import logits_of_states
from minivit.progress import Bar
from minivit.vit import VisionTransformer


class Ranking(NamedTuple):
    """What zeroing a part does to the log-probability of the class, as a mean over pictures.

    Attributes:
        heads: (L, H) log-probability without the head minus that of the whole model: below 0 for a
            head that the class depends on.
        mlps: (L,) the same for each MLP.
        log_probability: (B,) of the class for the whole model.
    """

    heads: Tensor
    mlps: Tensor
    log_probability: Tensor


def rank_parts(
    model: VisionTransformer, images: Tensor, target: Target = None, *, bar: Bar | None = None
) -> Ranking:
    """Zeroes each head and each MLP, one at a time.

    Blocks before the part are computed once for all: it takes about L · (H + 1) / 2 forward passes.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: The class; None: the predicted one.
        bar: Progress bar, counted in blocks.

    Raises:
        ValueError: No head, or no such class.
    """
    advance = (lambda count: None) if bar is None else bar("ablate", len(model.blocks))
    with fixed(model):
        with record(model, "outputs") as recording:
            logits = model(images)
        numbers = class_numbers(model, target, logits)
        before = log_probability(logits, numbers)
        outputs = [recording["outputs", block] for block in range(len(model.blocks))]
        states = [model.embed(images), *outputs]
        heads, mlps = [], []
        for block in range(len(model.blocks)):
            for head in range(model.config.num_heads):
                with intervene(model, heads={block: [head]}):
                    logits = logits_of_states(model, states[: block + 1])
                heads.append((log_probability(logits, numbers) - before).mean())
            with intervene(model, mlps=[block]):
                logits = logits_of_states(model, states[: block + 1])
            mlps.append((log_probability(logits, numbers) - before).mean())
            advance(1)
    by_block = torch.stack(heads).view(len(model.blocks), -1)  # (L·H,) -> (L, H)
    return Ranking(by_block, torch.stack(mlps), before)
