"""Which map belongs to which word: a sentence with the places that the captioner looked at.

The decoder's row i reads token i-1 (row 0 reads the start token) and predicts token i::

    reads      <start>   a     red    circle
    row           0      1      2       3
    predicts      a     red   circle  <end>

`align="predicts"` gives a word the row whose output it is: where the captioner looked in order to
say it. `align="reads"` gives it the row that takes it in, one later. The end token has a row of its
own in both, and no word is ever given it.

`decoder_input` makes what the rows read, `describe` turns the maps of the rows into captions. Both
are functions of numbers: no captioner is needed.

Next: `minivit/tokenizer.py`, how a caption becomes numbers and a word its pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minivit.fields import is_number, is_whole, require, require_choice
from minivit.generation import Hypothesis
from minivit.tokenizer import Tokenizer

Align = Literal["predicts", "reads"]
Box = tuple[float, float, float, float]

FIRST_ROW: dict[Align, int] = {"predicts": 0, "reads": 1}
"""The row of the first word."""


@dataclass(frozen=True)
class BestMap:
    """The block and head whose maps point best at what words name; stored with the weights.

    Attributes:
        words: Kind of the words, or "all".
        align: "predicts" or "reads": which row a word's map was.
        block: Number of the decoder block, from 0.
        head: Number of the head; None: the mean over heads.
        hits: Part of the words whose strongest cell shows some of the thing that the word names.
        chance: Part of the cells that do: what a cell drawn at random hits.
    """

    words: str
    align: Align
    block: int
    head: int | None
    hits: float
    chance: float

    def __post_init__(self) -> None:
        require(self, "words", isinstance(self.words, str), "a text", what="best map")
        require_choice(self, "align", Align, what="best map")
        require(self, "block", is_whole(self.block, 0), "a whole number from 0", what="best map")
        is_head = self.head is None or is_whole(self.head, 0)
        require(self, "head", is_head, "a whole number from 0, or null", what="best map")
        for name in ("hits", "chance"):
            share = getattr(self, name)
            require(self, name, is_number(share, 0, 1), "a number from 0 to 1", what="best map")


@dataclass(frozen=True)
class Word:
    """A word of a caption, its word-pieces merged.

    Attributes:
        text: The word as it reads.
        tokens: Indices of the caption's tokens that it is made of.
        log_prob: Sum of their log-probabilities.
        attention: (rows, cols), the mean of their maps.
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
        words: Words, with their word-pieces merged.
        end_log_prob: Log-probability of the end token; None where the sentence was cut.
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
    box: Box


def relative_attention(maps: Tensor) -> Tensor:
    """Maps corrected for what every word looks at: each divided by the mean over the words.

    Raw maps make "a" and "." look as telling as "umbrella", since a large part of all of them goes
    to the same few cells. Where every word looks at the objects, as in the shipped captioner's last
    block, the mean lies on them too and the division takes them away (lesson 9 measures it).

    Args:
        maps: (n, rows, cols).

    Returns:
        (n, rows, cols); 1 where a word looks as much as the average word does.
    """
    mean = maps.mean(dim=0)
    return maps / mean.clamp_min(torch.finfo(maps.dtype).tiny)


def decoder_input(
    sentences: Sequence[Sequence[int]], tokenizer: Tokenizer, *, max_length: int | None = None
) -> Tensor:
    """What the decoder's rows read: the start token, then a sentence, padded to the longest one.

    Args:
        sentences: B lists of token numbers, the end token last where it is to be read too.
        tokenizer: Tokenizer that knows the start token and the padding.
        max_length: Greatest number of tokens, the start token counted; the rest is cut off.

    Returns:
        (B, T) int64.
    """
    length = 1 + max(map(len, sentences))
    rows = [
        [tokenizer.start_id, *ids, *[tokenizer.pad_id] * (length - 1 - len(ids))]
        for ids in sentences
    ]
    return torch.tensor(rows)[:, :max_length]


def describe(
    sentences: Sequence[Hypothesis],
    maps: Tensor,
    tokenizer: Tokenizer,
    *,
    grids: Sequence[tuple[int, int]],
    boxes: Sequence[Box],
    align: Align = "predicts",
) -> list[Caption]:
    """Captions: each sentence with the map of each of its words.

    Args:
        sentences: B sentences, one for each picture.
        maps: (B, T, rows, cols): what each row of the decoder looked at, when it read
            `decoder_input`.
        tokenizer: Tokenizer of the sentences.
        grids: (rows, cols) of each picture's own cells; those below and on the right of them are
            padding and are cut off.
        boxes: (left, top, right, bottom) of these grids in pixels of the photos.
        align: "predicts" or "reads", see this module's docstring.

    Raises:
        ValueError: An unknown `align`.
    """
    if align not in FIRST_ROW:
        raise ValueError(f"align is {align!r}: choose from {', '.join(FIRST_ROW)}")
    return [
        _caption(sentence, own[FIRST_ROW[align] :, :rows, :cols], tokenizer, box)
        for sentence, own, (rows, cols), box in zip(sentences, maps, grids, boxes, strict=True)
    ]


def _caption(sentence: Hypothesis, maps: Tensor, tokenizer: Tokenizer, box: Box) -> Caption:
    """One caption; map i is that of token i, and the one after the last token is the end's."""
    ids, log_probs = sentence.token_ids, sentence.log_probs
    count = len(ids)
    tokens = [tokenizer.vocabulary[token] for token in ids]
    attention = maps[:count].clone()
    words = [
        Word(
            text=tokenizer.decode([ids[index] for index in group], skip_special=False),
            tokens=tuple(group),
            log_prob=sum(log_probs[index] for index in group),
            attention=attention[group].mean(dim=0),
        )
        for group in tokenizer.words(tokens)
    ]
    return Caption(
        text=tokenizer.decode(ids),
        tokens=tokens,
        token_ids=list(ids),
        log_probs=log_probs[:count],
        attention=attention,
        words=words,
        end_log_prob=log_probs[count] if sentence.ended else None,
        end_attention=maps[count] if sentence.ended and count < len(maps) else None,
        box=box,
    )
