"""Checks of lesson 9: a map for every word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import minivit
from minivit.captioner import Captioner, Memory
from minivit.data.scenes.dataset import TEST_SEED, Scene, make_scene
from minivit.explain.pointing import covered
from minivit.word_maps import decoder_input, relative_attention
from tutorials.checks.exercise import NotSolved, ask, exercise, expect_close, expect_shape

__all__ = [
    "Statement",
    "check_hidden_drop",
    "check_maps_of_words",
    "check_need",
    "check_relative",
    "first_statement",
]

_DIRECTIONS = (
    "left", "right", "above", "over", "below", "under", "beneath", "upper", "lower", "near", "next",
    "close",
)  # fmt: skip


class Statement(NamedTuple):
    """Where one object is said to lie from another, in a scene of three.

    Attributes:
        row: Row of the decoder that predicts the word of place.
        subject: Index of the object that was named before it.
        other: Index of the object that is named after it.
        third: Index of the object that the statement is not about.
    """

    row: int
    subject: int
    other: int
    third: int


def first_statement(scene: Scene) -> Statement | None:
    """The first statement of a caption such as "a red ring left of …"; None where it is another.

    Only scenes of three objects count, and captions whose first word of place has one object
    before it ("left of a ring there is …" names it later).
    """
    words, objects = scene.caption.split(), scene.word_objects
    row = next((place for place, word in enumerate(words) if word in _DIRECTIONS), None)
    if len(scene.objects) != 3 or row is None:
        return None
    before = {thing for thing in objects[:row] if thing is not None}
    after = [thing for thing in objects[row:] if thing is not None]
    if len(before) != 1 or not after or after[0] in before:
        return None
    (subject,), other = before, after[0]
    return Statement(row, subject, other, 3 - subject - other)


def _ask(hint: str, answer: Callable[..., Tensor], *inputs: object) -> Tensor:
    """`ask`, and what torch says of shapes that do not fit is followed by a hint."""
    try:
        return ask(answer, *inputs)
    except NotSolved as wrong:
        if "end in RuntimeError" not in str(wrong):
            raise
        raise NotSolved(f"{wrong}: {hint}") from None


@exercise("9.1", "Give each word its map")
def check_maps_of_words(answer: Callable[..., Tensor]) -> None:
    """Rows of the decoder to words: the right row, pieces averaged."""
    generator = torch.Generator().manual_seed(91)
    # Five rows read <start> snow ##man ##s melt; there is one more, which reads the last token.
    rows = torch.rand(5, 3, 4, generator=generator)  # (T, rows, cols)
    rows = rows / rows.sum(dim=(1, 2), keepdim=True)
    words = [[0, 1, 2], [3]]
    for reads in (False, True):
        maps = ask(answer, rows, words, reads)
        name = "reads" if reads else "predicts"
        expect_shape(maps, (2, 3, 4), "(words, rows, cols)")

        def of(
            first: int, pieces: Sequence[Sequence[int]] = tuple(words), *, add: bool = False
        ) -> Tensor:
            own = [rows[[(piece + first) % 5 for piece in word]] for word in pieces]
            return torch.stack([each.sum(0) if add else each.mean(0) for each in own])

        right = int(reads)
        turned = {
            "reads: every map is two words early, as if the shift were i - int(reads): the row "
            "that reads token i is row i + int(reads)": of(-1)
        }
        expect_close(
            maps,
            of(right),
            (turned if reads else {})
            | {
                f"{name}: every map is one word late: row 0 reads the start token and predicts "
                "token 0": of(right + 1),
                f"{name}: every map is one word early: the row that reads token i is row i + 1, "
                "since row 0 reads the start token": of(right - 1),
                f"{name}: the maps of a word's pieces are added, so they sum to the number of "
                "pieces: take their mean": of(right, add=True),
                f"{name}: a word of several pieces has the map of its first one alone: take the "
                "mean over its pieces": of(right, [word[:1] for word in words]),
                f"{name}: a word of several pieces has the map of its last one alone: take the "
                "mean over its pieces": of(right, [word[-1:] for word in words]),
                f"{name}: each word has one row, as if every word were one token: the pieces of a "
                "word are listed in `words`": rows[[right, right + 1]],
            },
            f"{name}: the maps are not the means over the rows of each word's tokens",
        )


@exercise("9.3", "Divide by what every word looks at")
def check_relative(answer: Callable[[Tensor], Tensor]) -> None:
    """Each map divided by the mean over the words, cell by cell."""
    generator = torch.Generator().manual_seed(92)
    maps = torch.rand(5, 3, 4, generator=generator)
    maps[:, 1, 2] += 3  # a cell that all words look at
    maps = maps / maps.sum(dim=(1, 2), keepdim=True)
    value = _ask(
        "the mean over the words, dimension 0, has the shape (rows, cols), and maps are divided by "
        "it as they are",
        answer,
        maps,
    )
    expect_shape(value, (5, 3, 4), "(words, rows, cols)")
    right = relative_attention(maps)
    mean = maps.mean(dim=0)
    others = (maps.sum(dim=0) - maps) / 4
    expect_close(
        value,
        right,
        {
            "each map is divided by one number, as its own mean over the cells: that changes its "
            "unit and not its form. The mean must be one over the words, and differ from cell to "
            "cell": maps / maps.mean(dim=(1, 2), keepdim=True),
            "the mean runs over the rows of the grid, dimension 1: it must run over the words, "
            "dimension 0": maps / maps.mean(dim=1, keepdim=True),
            "the mean runs over the columns of the grid, dimension 2: it must run over the words, "
            "dimension 0": maps / maps.mean(dim=2, keepdim=True),
            "the mean is subtracted: differences are largest where weights are large, and the "
            "question is how many times the average": maps - mean,
            "each map is divided by the sum over the words: the average word then has 1 / words "
            "and not 1": maps / maps.sum(dim=0),
            "each map is brought to the sum 1 again: 1 then no longer means as much as the average "
            "word": right / right.sum(dim=(1, 2), keepdim=True),
            "the mean is that of the other words, without the word itself": maps / others,
            "numerator and denominator are swapped": mean / maps,
        },
        "the numbers differ from each map divided, cell by cell, by the mean over the words",
    )


@functools.cache
def _captioner() -> Captioner:
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, Captioner)
    return captioner


def _reading(scenes: Sequence[Scene]) -> tuple[Memory, Tensor]:
    """The memory of scenes, and their true captions as the decoder reads them, (B, T)."""
    captioner = _captioner()
    tokenizer = captioner.tokenizer
    sentences = [[*tokenizer.encode(scene.caption), tokenizer.end_id] for scene in scenes]
    memory = captioner.encode_photos([scene.image for scene in scenes])
    return memory, decoder_input(sentences, tokenizer)


def _log_p(memory: Memory, tokens: Tensor) -> Tensor:
    """(B, T - 1): log-probability of each token after the start token, at the row before it."""
    log_p = _captioner().decode(tokens[:, :-1], memory)[0].log_softmax(dim=-1)
    return log_p.gather(2, tokens[:, 1:, None])[..., 0]  # (B, T - 1, 1) -> (B, T - 1)


@exercise("9.2", "Hide cells from the decoder")
def check_hidden_drop(answer: Callable[..., Tensor]) -> None:
    """How much less likely each word becomes when cells are hidden."""
    captioner = _captioner()
    # Two captions of one length, so that no padding is asked for; other cells in each picture.
    scenes = [make_scene(TEST_SEED, index) for index in (0, 7)]
    with torch.no_grad():
        memory, tokens = _reading(scenes)
        objects = torch.stack(
            [
                torch.from_numpy(scene.objects[thing].mask)
                for scene, thing in zip(scenes, (0, 1), strict=True)
            ]
        )
        cells = covered(objects, memory.grid) > 0  # (B, rows, cols)
        value = _ask(
            "is the memory's mask flat over the cells, (B, M)?",
            answer,
            captioner,
            memory,
            tokens,
            cells,
        )
        flat = cells.flatten(1)  # (B, rows, cols) -> (B, M)
        own, without, inverse, of_first, of_other = (
            _log_p(memory._replace(mask=mask), tokens)
            for mask in (None, ~flat, flat, ~flat[:1].expand(2, -1), ~flat.flip(0))
        )
        zeroed = memory.tokens.masked_fill(flat[..., None], 0.0)
        blank = _log_p(memory._replace(tokens=zeroed), tokens)
        wrong_picture = _log_p(memory._replace(tokens=memory.tokens.flip(0), mask=~flat), tokens)
        raw, raw_hidden = (
            captioner.decode(tokens[:, :-1], memory._replace(mask=mask))[0].gather(
                2, tokens[:, 1:, None]
            )[..., 0]
            for mask in (None, ~flat)
        )
    expect_shape(value, tuple(own.shape), "(B, T - 1)")
    right = own - without
    expect_close(
        value,
        right,
        {
            "the mask is turned: a memory's mask is True at the cells that may be looked at, and "
            "you hide all others": own - inverse,
            "the sign is turned: a word that becomes less likely has a drop above 0": -right,
            "these are differences of raw logits: take `log_softmax` of each pass first": raw
            - raw_hidden,
            "these are differences of probabilities: take those of their logarithms": own.exp()
            - without.exp(),
            "this is the log-probability with the cells hidden: subtract it from that with all of "
            "them": without,
            "the cells of picture 0 are hidden in every picture: each has its own, cells[b]": own
            - of_first,
            "each picture has the cells of another one hidden": own - of_other,
            "the pass with hidden cells reads the tokens of another picture": own - wrong_picture,
            "the cells' tokens are set to 0: the decoder still looks at them, and 0 with a "
            "position is a token as well. Hide them by the memory's mask": own - blank,
            "nothing changed: does the second pass get the memory with the mask?": own - own,
        },
        "the numbers differ from log p(word) with all cells minus log p(word) with those hidden; "
        "does row i ask for token i + 1?",
        tolerance=1e-3,
    )


@functools.cache
def needs(number: int = 100, seed: int = TEST_SEED) -> dict[str, tuple[float, float, float]]:
    """Of hidden subject, other and third object: mean drop of log p, of p, and the median drop.

    Args:
        number: Number of scenes, from scene 0 on.
        seed: Seed of the scenes.
    """
    stated = [
        (scene, statement)
        for scene in (make_scene(seed, index) for index in range(number))
        if (statement := first_statement(scene)) is not None
    ]
    scenes = [scene for scene, _ in stated]
    rows = torch.tensor([statement.row for _, statement in stated])
    each = torch.arange(len(scenes))
    table = {}
    with torch.no_grad():
        memory, tokens = _reading(scenes)
        own = _log_p(memory, tokens)[each, rows]
        for name in ("subject", "other", "third"):
            masks = [
                torch.from_numpy(scene.objects[getattr(statement, name)].mask)
                for scene, statement in stated
            ]
            cells = covered(torch.stack(masks), memory.grid) > 0  # (B, rows, cols)
            hidden = memory._replace(mask=~cells.flatten(1))
            without = _log_p(hidden, tokens)[each, rows]
            drop = own - without
            table[name] = (
                float(drop.mean()),
                float((own.exp() - without.exp()).mean()),
                float(drop.median()),
            )
    return table


@exercise("9.4", "Measure which objects a relation needs")
def check_need(answer: Mapping[str, float]) -> None:
    """Mean drop of log p(word of place) when subject, other or third object is hidden."""
    if not isinstance(answer, Mapping):
        raise NotSolved('a dictionary is expected: {"subject": …, "other": …, "third": …}')
    table = needs()
    if missing := [name for name in table if name not in answer]:
        raise NotSolved(f"no number for {', '.join(missing)}: the keys are {', '.join(table)}")
    for name, (mean, of_p, median) in table.items():
        try:
            value = float(answer[name])
        except (TypeError, ValueError, RuntimeError):
            raise NotSolved(f"the value for {name!r} is no number") from None
        mistakes = {
            f"{name}: the sign is turned: log p with all cells minus log p with the object "
            "hidden": -mean,
            f"{name}: these are differences of probabilities: take those of their logarithms": of_p,
        }
        if name != "third":  # its median is nearly 0, as are guesses
            mistakes |= {
                f"{name}: this is the median: a few scenes lose much, so it is far from the mean "
                "that is asked for": median,
                f"{name}: subject and other object are swapped: the subject is the object that is "
                "named first": table["other" if name == "subject" else "subject"][0],
            }
        if abs(value - mean) > 5e-3:
            mistakes |= {
                f"{name}: these are the scenes 0 to 119, those of the page; take 0 to 99": needs(
                    120
                )[name][0],
                f"{name}: these are scenes of seed 0; take those of TEST_SEED": needs(seed=0)[name][
                    0
                ],
            }
        expect_close(
            value,
            mean,
            mistakes,
            f"{name}: {value:.3f} nats is not the mean drop over the statements of scenes 0 to 99: "
            "is it the row that predicts the word of place, and are all cells hidden that show "
            "some of the object?",
            tolerance=5e-3,
        )
