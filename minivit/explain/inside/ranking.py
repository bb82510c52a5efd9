"""Which heads and MLPs a class depends on: each is replaced alone, and the class asked for again.

Michel et al. 2019, "Are Sixteen Heads Really Better than One?" (arXiv:1905.10650), rank heads so.
Two parts that stand in for each other both look as if they did not matter: silence them together,
with `intervene`, before you say so. `word_ranking.py` does the same for the words of a captioner.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers, fixed, log_probability
from minivit.explain.inside.intervene import intervene
from minivit.explain.inside.parts import record
from minivit.explain.states import logits_of_states
from minivit.progress import Bar
from minivit.vit import VisionTransformer

Replace = Literal["zero", "mean"]
"""What takes a part's place: zeros, or its mean over all tokens."""

Parts = Literal["heads", "mlps", "all"]
"""Which parts are replaced."""


class Ranking(NamedTuple):
    """What the loss of a part does to the log-probability of the class, as a mean over pictures.

    Attributes:
        heads: (L, H) log-probability without the head minus that of the whole model: below 0 for a
            head that the class depends on. (L, 0) where heads were not asked for.
        mlps: (L,) the same for each MLP; (0,) where they were not asked for.
        log_probability: (B,) of the class for the whole model.
    """

    heads: Tensor
    mlps: Tensor
    log_probability: Tensor


def rank_parts(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    parts: Parts = "all",
    replace: Replace = "zero",
    bar: Bar | None = None,
) -> Ranking:
    """Replaces each head and each MLP, one at a time.

    Blocks before the part are computed once for all: it takes about L · (H + 1) / 2 forward passes.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: The class; None: the predicted one.
        parts: "heads", "mlps" or "all".
        replace: "zero", a number that the model may never have seen there; or "mean", the part's
            mean over all tokens of the picture.
        bar: Progress bar, counted in blocks.

    Raises:
        ValueError: No head, no such class, or another word for `parts` or `replace`.
    """
    check_choices(parts, replace)
    num_heads = model.config.num_heads if parts != "mlps" else 0
    by: Literal["mean"] | float = "mean" if replace == "mean" else 0.0
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
            for head in range(num_heads):
                with intervene(model, heads={block: [head]}, by=by):
                    logits = logits_of_states(model, states[: block + 1])
                heads.append((log_probability(logits, numbers) - before).mean())
            if parts != "heads":
                with intervene(model, mlps=[block], by=by):
                    logits = logits_of_states(model, states[: block + 1])
                mlps.append((log_probability(logits, numbers) - before).mean())
            advance(1)
        none = before.new_zeros(0)
        by_block = torch.stack(heads) if heads else none  # (L·H,)
        by_block = by_block.view(len(model.blocks), num_heads)  # (L·H,) -> (L, H)
        return Ranking(by_block, torch.stack(mlps) if mlps else none, before)


def check_choices(parts: str, replace: str) -> None:
    """Raises a ValueError for words that are no `Parts` and no `Replace`."""
    for name, word, choices in (("parts", parts, Parts), ("replace", replace, Replace)):
        if word not in get_args(choices):
            raise ValueError(f"{name} is {word!r}: choose from {', '.join(get_args(choices))}")
