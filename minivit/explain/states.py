"""From the states of a forward pass to the logits: what is left to compute, and no more.

A state is the tokens (B, N, D) as they enter the first block or leave a block. Methods that keep
some of them, change them, or leave patches out go on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor

from minivit.attention import MultiHeadAttention
from minivit.blocks import EncoderBlock
from minivit.precision import is_plain
from minivit.vit import VisionTransformer


def logits_of_states(model: VisionTransformer, states: Sequence[Tensor]) -> Tensor:
    """Logits (B, classes) from the first states of a forward pass: what is left of it is computed.

    Args:
        model: Model in eval mode; without a head it gives the pooled features (B, D).
        states: The tokens (B, N, D) as they enter the first block, and after each block that has
            run, first block first.
    """
    read = deque(states, maxlen=model.config.head_blocks)  # of the others nothing is kept
    for number in range(len(states) - 1, len(model.blocks)):
        tokens, _ = run_block(model, number, read[-1])
        read.append(tokens)
    return classify_outputs(model, read)


def run_block(
    model: VisionTransformer, number: int, tokens: Tensor, *, need_weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """A block, on the way to the logits: the last one only for the tokens that the head reads.

    Where these are the class token and the distillation token, the last block asks the others for
    keys and values alone, which saves nearly a block, in a backward pass too. Hooks may look at
    the tokens that would be missing: a block that has some runs as it is.

    Args:
        model: Model in eval mode.
        number: Number of the block, from 0.
        tokens: (B, N, D) as they enter the block.
        need_weights: Whether its weights are wanted.

    Returns:
        The first n tokens, (B, n, D), n being all or as many as the head reads; and their weights
        (B, H, n, N), or None.
    """
    block = cast(EncoderBlock, model.blocks[number])
    is_last = number == len(model.blocks) - 1
    if not is_last or model.config.pooling != "cls" or not is_plain_block(block):
        output, weights = block(tokens, need_weights=need_weights)
        return output, weights
    count = 1 + model.config.distillation_token
    normed = block.before(block.norm1, tokens)
    attended, weights = block.attn(normed[:, :count], normed, need_weights=need_weights)
    h = block.after(block.norm1, tokens[:, :count] + block.ls1(attended))  # (B, N, D) -> (B, n, D)
    return block.after(block.norm2, h + block.ls2(block.mlp(block.before(block.norm2, h)))), weights


def is_plain_block(block: EncoderBlock) -> bool:
    """Whether a block computes what its weights say, and nobody looks on."""
    if type(block) is not EncoderBlock or type(block.attn) is not MultiHeadAttention:
        return False
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    hooks = (getattr(module, f"_{kind}_hooks") for module in block.modules() for kind in kinds)
    return is_plain(block.attn.qkv) and not any(hooks)


def classify_outputs(model: VisionTransformer, outputs: Iterable[Tensor]) -> Tensor:
    """Logits (B, classes) from what the last blocks gave.

    Args:
        model: Model with the head.
        outputs: Outputs (B, N, D) of the last `head_blocks` blocks, the last block's last.
    """
    *earlier, last = outputs
    class_tokens = [model.norm(tokens[:, 0]) for tokens in earlier]  # (B, N, D) -> (B, D)
    return model.classify(model.norm(last), class_tokens)
