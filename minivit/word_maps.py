"""Which map belongs to which word: sentences with the places that a captioner looked at.

Which map belongs to which word is a matter of contract. The decoder's row i reads token i-1 (row 0
reads the start token) and predicts token i::

    reads      <start>   a     red    circle
    row           0      1      2       3
    predicts      a     red   circle  <end>

`align="predicts"` gives a word the row whose output it is: where the captioner looked in order to
say it. `align="reads"` gives it the row that takes it in, one later. The end token has a row of its
own in both, and no word is ever given it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor

from minivit.generation import Hypothesis

if TYPE_CHECKING:
    from minivit.captioner import Captioner, Memory

Align = Literal["predicts", "reads"]


@dataclass(frozen=True)
class Word:
    """A word of a caption, its word-pieces merged.

    Attributes:
        text: As it reads.
        tokens: Which of the caption's tokens it is made of.
        log_prob: Sum over them.
        attention: (rows, cols), mean over them.
    """

    text: str
    tokens: tuple[int, ...]
    log_prob: float
    attention: Tensor


@dataclass(frozen=True)
class Caption:
    """A sentence about a photo, and where the captioner looked at each word.

    Attributes:
        text: The sentence.
        tokens: Its words or word-pieces, without start and end token.
        token_ids: Their numbers.
        log_probs: Their log-probabilities.
        attention: (len(tokens), rows, cols), each map sums to 1 (to float precision).
        words: Word-pieces merged to words.
        end_log_prob: Of the end token; None where the sentence was cut.
        end_attention: (rows, cols), the map of the end token; None where the sentence was cut, or
            where no position was left to read it.
        box: (left, top, right, bottom) of the grid of cells, in pixels of the photo; it can reach
            over the photo's edges.
    """

    text: str
    tokens: list[str]
    token_ids: list[int]
    log_probs: list[float]
    attention: Tensor
    words: list[Word]
    end_log_prob: float | None
    end_attention: Tensor | None
    box: tuple[float, float, float, float]


def relative_attention(maps: Tensor) -> Tensor:
    """Maps corrected for what every word looks at: each divided by the mean over the words.

    Raw maps make "a" and "." look as telling as "umbrella", since a large share of all of them goes
    to the same few cells.

    Args:
        maps: (n, rows, cols).

    Returns:
        (n, rows, cols); 1 where a word looks as much as the average word does.
    """
    mean = maps.mean(dim=0)
    return maps / mean.clamp_min(torch.finfo(maps.dtype).tiny)


@torch.inference_mode()
def describe(
    captioner: Captioner,
    memory: Memory,
    pictures: Sequence[Image.Image],
    hypotheses: Sequence[Hypothesis],
    *,
    align: Align = "predicts",
    layer: int = -1,
    head: int | None = None,
) -> list[Caption]:
    """Sentences with the maps of their words, by one more pass of the decoder over all words.

    Args:
        captioner: In eval mode.
        memory: Of B pictures.
        pictures: The B photos, for their sizes.
        hypotheses: A sentence each.
        align: See this module's docstring.
        layer: Decoder block, negative numbers from the last.
        head: One head; None: the mean over heads.

    Raises:
        IndexError: A layer or head that does not exist.
        ValueError: An unknown `align`.
    """
    config = captioner.config
    if not -config.decoder_depth <= layer < config.decoder_depth:
        raise IndexError(f"layer {layer}: this captioner has {config.decoder_depth} decoder blocks")
    if head is not None and not 0 <= head < config.num_heads:
        raise IndexError(f"head {head}: this captioner has {config.num_heads} heads, from 0")
    if align not in ("predicts", "reads"):
        raise ValueError(f"align is {align!r}: choose from predicts, reads")
    tokenizer = captioner.tokenizer
    read = [
        [tokenizer.start_id, *found.token_ids, *([tokenizer.end_id] if found.ended else [])]
        for found in hypotheses
    ]
    length = min(config.max_length, max(map(len, read)))
    padded = [ids[:length] + [tokenizer.pad_id] * (length - len(ids)) for ids in read]
    tokens = torch.tensor(padded, device=memory.tokens.device)  # (B, T)
    _, _, to_cells = captioner.decode(tokens, memory, need_weights=True)
    weights = to_cells[layer]  # (B, H, T, M)
    maps = weights.mean(dim=1) if head is None else weights[:, head]  # (B, H, T, M) -> (B, T, M)
    maps = maps.float().cpu().view(*maps.shape[:2], *memory.grid)  # (B, T, M) -> (B, T, rows, cols)
    first = 0 if align == "predicts" else 1
    captions = []
    for index, (picture, found) in enumerate(zip(pictures, hypotheses, strict=True)):
        own = maps[index]
        if memory.mask is not None:
            mask = memory.mask[index].cpu().view(memory.grid)
            own = own[:, : int(mask.any(1).sum()), : int(mask.any(0).sum())]
        count, last = len(found.token_ids), first + len(found.token_ids)
        end = own[last] if found.ended and last < own.shape[0] else None
        captions.append(
            _caption(captioner, picture, found, own[first : first + count].clone(), end)
        )
    return captions


def _caption(
    captioner: Captioner,
    picture: Image.Image,
    found: Hypothesis,
    attention: Tensor,
    end_attention: Tensor | None,
) -> Caption:
    """One caption from its maps (n, rows, cols)."""
    tokenizer = captioner.tokenizer
    tokens = [tokenizer.vocabulary[token] for token in found.token_ids]
    count = len(tokens)
    words = [
        Word(
            text=tokenizer.decode([found.token_ids[i] for i in group], skip_special=False),
            tokens=tuple(group),
            log_prob=sum(found.log_probs[i] for i in group),
            attention=attention[group].mean(dim=0),
        )
        for group in tokenizer.words(tokens)
    ]
    rows, cols = attention.shape[1:]
    # The grid in pixels of the input, and the input in pixels of the photo.
    seen = captioner.preprocess.view_size(*picture.size)
    left, top, right, bottom = captioner.preprocess.crop_box(*picture.size)
    across, down = (right - left) / seen[0], (bottom - top) / seen[1]
    cells = captioner.cell_box(rows, cols)
    return Caption(
        text=tokenizer.decode(found.token_ids),
        tokens=tokens,
        token_ids=list(found.token_ids),
        log_probs=found.log_probs[:count],
        attention=attention,
        words=words,
        end_log_prob=found.log_probs[count] if found.ended else None,
        end_attention=end_attention,
        box=(
            left + cells[0] * across,
            top + cells[1] * down,
            left + cells[2] * across,
            top + cells[3] * down,
        ),
    )
