"""Renaming by table: one line a tensor of the source, `{i}` for the number of the block.

A table maps the source's names to minivit's. Placeholders: `{i}` is a number, `{part}` is weight or
bias, `{rest}` is anything. None as target: dropped on purpose. A target that ends in `:q`, `:k` or
`:v` is a third of the tensor before the colon; the three are stacked in this order, as are the
halves `:gate` and `:up` of a SwiGLU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from weights_convert.reading import ConvertError

# Parts of other models, by a part of their names, so that a refusal can say what they are.
_OTHER_PARTS = {
    "attn_pool": "attention pooling",
    "q_norm": "normalised queries",
    "k_norm": "normalised keys",
    "relative_position": "relative positions",
    "rel_pos": "relative positions",
    "rope": "rotary positions",
    "decoder": "a decoder",
    "attn.norm": "a norm inside the attention",
    "mlp.norm": "a norm inside the MLP",
    "patch_embed.norm": "a norm after the patches",
    "patch_embed.backbone": "a hybrid",
    "num_batches_tracked": "batch norms",
}
KeyTable = Mapping[str, str | None]

_STACKS = (("q", "k", "v"), ("gate", "up"))
_PLACEHOLDERS = {
    "{i}": r"(?P<i>\d+)",
    "{part}": r"(?P<part>weight|bias)",
    "{rest}": r"(?P<rest>.*)",
}


def rename(tensors: dict[str, Tensor], table: KeyTable, source: str) -> dict[str, Tensor]:
    """Takes the tensors out of a dictionary and gives them back by minivit's names.

    Args:
        tensors: By the source's names; it is empty afterwards, so that what was stacked from three
            parts does not stay in memory beside the whole.
        table: See above.
        source: The file's name, for messages.

    Returns:
        The tensors by minivit's names.

    Raises:
        ConvertError: Names that the table does not know (the first few, and how many), two tensors
            for one target, or a query without its key or value.
    """
    patterns = [(_pattern(name), target) for name, target in table.items()]
    renamed: dict[str, Tensor] = {}
    stacks: dict[str, dict[str, Tensor]] = {}
    unexpected = []
    while tensors:
        name = next(iter(tensors))
        tensor = tensors.pop(name)
        row = next(
            ((match, target) for key, target in patterns if (match := key.fullmatch(name))), None
        )
        if row is None:
            unexpected.append(name)
            continue
        match, target = row
        if target is None:
            continue
        target, _, part = target.format(**match.groupdict()).partition(":")
        if part:
            parts = stacks.setdefault(target, {})
            parts[part] = tensor
            order = next(stack for stack in _STACKS if part in stack)
            if len(parts) < len(order):
                continue
            tensor = _stack([parts[part] for part in order])
            del stacks[target]
        if target in renamed:
            raise ConvertError(f"{source}: two tensors for {target}, the second is {name}")
        renamed[target] = tensor
    if unexpected:
        unexpected.sort()
        shown = ", ".join(unexpected[:3]) + (", …" if len(unexpected) > 3 else "")
        others = [what for part, what in _OTHER_PARTS.items() if any(part in n for n in unexpected)]
        reason = f", which is {', '.join(dict.fromkeys(others))}" if others else ""
        raise ConvertError(
            f"{source}: {len(unexpected)} tensors that do not belong to a model minivit can run "
            f"({shown}){reason}; if the format was guessed wrongly, give --format"
        )
    if stacks:
        target, parts = next(iter(stacks.items()))
        raise ConvertError(
            f"{source}: {target} is made of several tensors; found {', '.join(sorted(parts))} only"
        )
    return renamed


def _stack(parts: list[Tensor]) -> Tensor:
    """One above the other; torch.cat is slow where they are transposed views, as Flax's are."""
    heights = [part.shape[0] for part in parts]
    stacked = parts[0].new_empty((sum(heights), *parts[0].shape[1:]))  # (3·D, D)
    for slot, part in zip(torch.split(stacked, heights), parts, strict=True):
        slot.copy_(part)
    return stacked


def _pattern(name: str) -> re.Pattern[str]:
    expression = re.escape(name)
    for placeholder, group in _PLACEHOLDERS.items():
        expression = expression.replace(re.escape(placeholder), group)
    return re.compile(expression)
