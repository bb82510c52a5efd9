"""Which heads and MLPs of a captioner a word depends on: each is replaced alone.

As `ranking.py` does for a class. The sentence stays what it is: the captioner reads it as in
training, and each word is asked for its log-probability after the words before it. A part that
matters for "red" and for no other word was of use for the colour.

A caption has the sum of its words. Parts that stand before the memory of cells (a ViT's blocks, the
encoder) act on every word through it; those of the decoder act word by word. A ResNet has no heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from minivit.attention import MultiHeadAttention
from minivit.blocks import EncoderBlock
from minivit.captioner import Captioner, Memory
from minivit.decoder import DecoderBlock
from minivit.explain.conditions import fixed
from minivit.explain.inside.ranking import Parts, Replace, check_choices
from minivit.precision import widen
from minivit.progress import Bar
from minivit.vit import VisionTransformer


class RankedBlock(NamedTuple):
    """What the loss of each part of one attention and one MLP does to each word.

    Attributes:
        where: Place of the block: "ViT", "encoder", "decoder words" (what words give to words) or
            "decoder cells" (what words give to cells).
        block: Number of the block there.
        heads: (H, words) log-probability without the head minus that of the whole captioner;
            (0, words) where heads were not asked for.
        mlp: (words,) the same for the MLP; None where there is none or it was not asked for.
    """

    where: str
    block: int
    heads: Tensor
    mlp: Tensor | None


class WordRanking(NamedTuple):
    """What the loss of parts does to the words of a sentence.

    Attributes:
        blocks: One entry for each attention, in the order in which a picture meets them.
        log_probabilities: (words,) of each word for the whole captioner.
    """

    blocks: list[RankedBlock]
    log_probabilities: Tensor


def rank_word_parts(
    captioner: Captioner,
    images: Tensor,
    tokens: Tensor,
    *,
    parts: Parts = "all",
    replace: Replace = "zero",
    bar: Bar | None = None,
) -> WordRanking:
    """Replaces each head and each MLP, one at a time, while the captioner reads a sentence.

    It takes a pass of what comes after the part: of encoder and decoder for a part of these, of all
    for one of a ViT.

    Args:
        captioner: Captioner in any mode.
        images: (1, 3, height, width).
        tokens: (1, T): the start token, and the sentence, its end token included where it has one.
        parts: "heads", "mlps" or "all".
        replace: "zero"; or "mean", the part's mean over all cells, or over all words of the
            sentence, the later ones too.
        bar: Progress bar, counted in attentions.

    Returns:
        The ranking of the T - 1 words after the start token.

    Raises:
        ValueError: Not one picture, no word, or another word for `parts` or `replace`.
    """
    check_choices(parts, replace)
    if len(images) != 1 or tokens.dim() != 2 or len(tokens) != 1 or tokens.shape[1] < 2:
        raise ValueError(
            f"images are {tuple(images.shape)}, tokens {tuple(tokens.shape)}: expected (1, 3, "
            "height, width) and (1, T), the start token and a word at least"
        )
    places = _places(captioner)
    advance = (lambda count: None) if bar is None else bar("ablate", len(places))
    ranked = []
    with fixed(captioner):
        features, _ = captioner._features(images)  # (1, rows, cols, D)
        memory, _ = captioner._encode_grid(features, None)
        before = _log_probabilities(captioner, tokens, memory)

        def without(place: _Place, module: nn.Module, head: int | None = None) -> Tensor:
            with _replaced(module, head, replace):
                if place.where == "ViT":
                    seen = captioner.encode(images)
                elif place.where == "encoder":
                    seen, _ = captioner._encode_grid(features, None)
                else:
                    seen = memory
                return _log_probabilities(captioner, tokens, seen) - before

        for place in places:
            count = place.attention.num_heads if parts != "mlps" else 0
            heads = [without(place, place.attention, head) for head in range(count)]
            has_mlp = place.mlp is not None and parts != "heads"
            mlp = without(place, cast(nn.Module, place.mlp)) if has_mlp else None
            stacked = torch.stack(heads) if heads else before.new_zeros(0, len(before))
            ranked.append(RankedBlock(place.where, place.block, stacked, mlp))
            advance(1)
    return WordRanking(ranked, before)


class _Place(NamedTuple):
    """An attention of a captioner, and the MLP that follows it, if one does."""

    where: str
    block: int
    attention: MultiHeadAttention
    mlp: nn.Module | None


def _places(captioner: Captioner) -> list[_Place]:
    places = []
    groups: list[tuple[str, Any]] = [("encoder", captioner.encoder)]
    if isinstance(captioner.backbone, VisionTransformer):
        groups.insert(0, ("ViT", captioner.backbone.blocks))
    for where, blocks in groups:
        for number, block in enumerate(cast("list[EncoderBlock]", blocks)):
            places.append(_Place(where, number, block.attn, block.mlp))
    for number, decoder in enumerate(cast("list[DecoderBlock]", captioner.decoder)):
        places.append(_Place("decoder words", number, decoder.attn, None))
        places.append(_Place("decoder cells", number, decoder.cross_attn, decoder.mlp))
    return places


def _log_probabilities(captioner: Captioner, tokens: Tensor, memory: Memory) -> Tensor:
    """(words,): of each word after those before it."""
    logits, _, _ = captioner.decode(tokens[:, :-1], memory)  # (1, T - 1, vocabulary)
    chosen = widen(logits).log_softmax(dim=-1).gather(2, tokens[:, 1:, None])  # (1, T - 1, 1)
    return chosen[0, :, 0]


@contextlib.contextmanager
def _replaced(module: nn.Module, head: int | None, replace: Replace) -> Iterator[None]:
    """Has an MLP's output, or one head's before the output projection, replaced within."""

    def other(part: Tensor) -> Tensor:
        mean = part.mean(dim=1, keepdim=True)
        return mean if replace == "mean" else torch.zeros_like(mean)

    def change_head(projection: nn.Module, arguments: Any) -> Tensor:
        attention = cast(MultiHeadAttention, module)
        changed = (
            arguments[0].unflatten(-1, (attention.num_heads, -1)).clone()
        )  # (…, D) -> (…, H, d)
        changed[:, :, head] = other(changed)[:, :, head]
        return changed.flatten(-2)  # (…, H, d) -> (…, D)

    def change_output(mlp: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return other(output).expand_as(output)

    if head is None:
        handle = module.register_forward_hook(change_output)
    else:
        handle = cast(MultiHeadAttention, module).proj.register_forward_pre_hook(change_head)
    try:
        yield
    finally:
        handle.remove()
