"""The parts of a forward pass that can be recorded and changed, and where each of them is found.

A pre-norm block adds two branches to its tokens, the residual stream x (`minivit/blocks.py`)::

    heads      o_h = A_h V_h, for each head h, before the output projection       (B, N, H, d)
    attention  a = concat(o_1 … o_H) W_O + b, before LayerScale                   (B, N, D)
    mlps       m = MLP(LN(x + a)), before LayerScale                              (B, N, D)
    blocks     what the block adds to its tokens: x' - x                          (B, N, D)
    outputs    its tokens, the residual stream after it: x'                       (B, N, D)

and "embedding" is the stream before the first block. Hooks of torch read and write them, so a model
computes as ever, on the fused kernel; they are removed with the context that set them, also after
an error. Where several hooks sit on one part, each sees what those before it have left.

`intervene.py` changes parts, `contributions.py` adds them up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minivit.blocks import EncoderBlock
from minivit.vit import VisionTransformer

Part = Literal["embedding", "heads", "attention", "mlps", "blocks", "outputs"]
Change = Callable[[Tensor], Tensor | None]
"""A function that is given a part and gives what takes its place; None: it stays."""


class Recording:
    """Parts of a forward pass, as `record` has kept them: `recording["heads", 3]`.

    Attributes:
        values: Tensors by part and number of the block, in the shapes that the module's text shows;
            the embedding has number 0. They are not detached.
    """

    def __init__(self, values: dict[tuple[str, int], Tensor] | None = None) -> None:
        self.values = {} if values is None else values

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        if key not in self.values:
            kept = ", ".join(f"{part} {block}" for part, block in self.values) or "nothing"
            raise ValueError(
                f"{key[0]} of block {key[1]} are not in this recording, which holds {kept}: record "
                "them, and run the model within"
            )
        return self.values[key]

    def mean(self) -> Recording:
        """The mean over the pictures of the batch, each (1, N, …)."""
        return Recording({key: part.mean(0, keepdim=True) for key, part in self.values.items()})


@contextlib.contextmanager
def record(
    model: VisionTransformer, *parts: Part, blocks: Sequence[int] | None = None
) -> Iterator[Recording]:
    """Keeps parts of the forward passes within: of the last one, where there are several.

    Within `intervene` it keeps what that has left of them.

    Args:
        model: Vision Transformer, neither packed nor compiled.
        parts: Names of parts; none: all. Five tensors as large as the tokens are kept for a block.
        blocks: Numbers of the blocks, negative ones from the last; None: all.

    Yields:
        The recording, which is empty until the model has run.

    Raises:
        ValueError: Another kind of model, no such part, or no such block.
    """
    for part in parts:
        if part not in get_args(Part):
            raise ValueError(f"no part is called {part!r}: choose from {', '.join(get_args(Part))}")
    recording = Recording()

    def keep(key: tuple[str, int], part: Tensor) -> None:
        recording.values[key] = part

    with hooks_on(model) as handles:
        numbers = block_numbers(model, range(len(model.blocks)) if blocks is None else blocks)
        for part in parts or get_args(Part):
            for block in [0] if part == "embedding" else numbers:
                handles.append(on_part(model, part, block, partial(keep, (part, block))))
        yield recording


@contextlib.contextmanager
def hooks_on(model: VisionTransformer) -> Iterator[list[RemovableHandle]]:
    """A list for handles of hooks, which are removed at the end.

    Gradient checkpointing is off within: a backward pass after the end would compute the blocks
    again without the hooks, and take gradients of another function.

    Raises:
        ValueError: A model that would not call the hooks.
    """
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"parts of a {type(model).__name__} cannot be reached: give a VisionTransformer, and "
            "of a packed or compiled one the model that it was made of"
        )
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise ValueError("a compiled model does not call hooks: give one that is not compiled")
    checkpointing = model.gradient_checkpointing
    handles: list[RemovableHandle] = []
    try:
        model.gradient_checkpointing = False
        yield handles
    finally:
        for handle in handles:
            handle.remove()
        model.gradient_checkpointing = checkpointing


def block_numbers(model: VisionTransformer, blocks: Sequence[int]) -> list[int]:
    """Numbers of blocks counted from 0, also of those that are counted from the last."""
    return whole_numbers("block", blocks, len(model.blocks))


def whole_numbers(what: str, numbers: Sequence[int], count: int) -> list[int]:
    """Numbers counted from 0, also of those that are counted from the last; each once.

    Raises:
        ValueError: A number beyond the count.
    """
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"{what} {number}: choose from {-count} to {count - 1}")
    return list(dict.fromkeys(number % count for number in numbers))


def on_part(model: VisionTransformer, part: Part, number: int, change: Change) -> RemovableHandle:
    """Has a part of a block pass through a function in every forward pass.

    Args:
        model: Vision Transformer.
        part: Name of the part.
        number: Number of the block, from 0.
        change: Function of the part, in the shape that the module's text shows.
    """
    block = cast(EncoderBlock, model.blocks[number])

    def first_argument(module: nn.Module, arguments: Any) -> Tensor | None:
        refuse_recomputing()
        return change(arguments[0])

    def heads(module: nn.Module, arguments: Any) -> Tensor | None:
        refuse_recomputing()
        parted = arguments[0].unflatten(-1, (block.attn.num_heads, -1))  # (…, D) -> (…, H, d)
        changed = change(parted)
        return None if changed is None else changed.flatten(-2)  # (…, H, d) -> (…, D)

    def output(module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        refuse_recomputing()
        return change(output)

    def first_output(module: nn.Module, arguments: Any, outputs: Any) -> Any:
        refuse_recomputing()
        changed = change(outputs[0])
        return None if changed is None else (changed, outputs[1])

    def update(module: nn.Module, arguments: Any, outputs: Any) -> Any:
        refuse_recomputing()
        tokens, after = arguments[0], outputs[0]
        added = after - tokens
        changed = change(added)
        if changed is None:
            return None
        # x + (x' - x) rounds: a number that stays takes no part in that.
        return torch.where(changed == added, after, tokens + changed), outputs[1]

    if part == "embedding":
        return block.register_forward_pre_hook(first_argument)
    if part == "heads":
        return block.attn.proj.register_forward_pre_hook(heads)
    if part == "attention":
        return block.attn.register_forward_hook(first_output)
    if part == "mlps":
        return block.mlp.register_forward_hook(output)
    return block.register_forward_hook(update if part == "blocks" else first_output)


def refuse_recomputing() -> None:
    """Raises a RuntimeError in a backward pass that computes blocks of a forward pass again.

    Such a forward pass was another context's, whose gradients would be wrong.
    """
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a backward pass computes a block again while an intervention or a recording is on: "
            "leave it first, or switch gradient checkpointing off"
        )
