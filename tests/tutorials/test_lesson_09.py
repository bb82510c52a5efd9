"""Lesson 9: its checks tell wrong answers apart, and what it says of the captioner holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import minivit
from minivit.captioner import Captioner, Memory
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.training.caption.grounding import ground
from minivit.word_maps import relative_attention
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_hidden_drop,
    check_maps_of_words,
    check_need,
    check_relative,
    first_statement,
)
from tutorials.checks.lesson_09 import needs


def _by_loop(rows: Tensor, words: list[list[int]], reads: bool) -> Tensor:
    maps = rows.new_zeros(len(words), *rows.shape[1:])
    for number, tokens in enumerate(words):
        for token in tokens:
            maps[number] += rows[token + (1 if reads else 0)] / len(tokens)
    return maps


def test_the_maps_of_words() -> None:
    right = solution("09", "9.1")["maps_of_words"]
    assert_told_apart(
        check_maps_of_words,
        right=[right, _by_loop],
        wrong={
            "predicts: every map is one word late": lambda r, w, reads: right(r, w, True),
            "reads: every map is one word late": lambda r, w, reads: right(
                r.roll(-int(reads), 0), w, reads
            ),
            "reads: every map is one word early": lambda r, w, reads: right(r, w, False),
            "reads: every map is two words early": lambda r, w, reads: torch.stack(
                [r[[i - int(reads) for i in tokens]].mean(dim=0) for tokens in w]
            ),
            "are added": lambda r, w, reads: torch.stack(
                [r[int(reads) :][tokens].sum(dim=0) for tokens in w]
            ),
            "first one alone": lambda r, w, reads: right(r, [tokens[:1] for tokens in w], reads),
            "last one alone": lambda r, w, reads: right(r, [tokens[-1:] for tokens in w], reads),
            "as if every word were one token": lambda r, w, reads: r[int(reads) :][: len(w)],
            "(words, rows, cols)": lambda r, w, reads: r[int(reads) :],
            "has other numbers": changed_in_place(right),
            "nothing comes back": lambda r, w, reads: None,
        },
    )


def test_hidden_cells() -> None:
    right = solution("09", "9.2")["hidden_drop"]

    def parts(captioner: Captioner, memory: Memory, tokens: Tensor, mask: Tensor | None) -> Any:
        def log_p(seen: Memory) -> Tensor:
            logits = captioner.decode(tokens, seen)[0][:, :-1]
            return -torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), tokens[:, 1:], reduction="none"
            )

        return log_p(memory), log_p(memory._replace(mask=mask))

    def other(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own, without = parts(captioner, memory, tokens, cells.logical_not().flatten(1))
        return own - without

    def turned(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own, without = parts(captioner, memory, tokens, cells.flatten(1))
        return own - without

    def of_p(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own, without = parts(captioner, memory, tokens, ~cells.flatten(1))
        return own.exp() - without.exp()

    def zeroed(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        blank = memory.tokens * ~cells.flatten(1)[..., None]
        own, without = (
            parts(captioner, memory._replace(tokens=each), tokens, None)[0]
            for each in (memory.tokens, blank)
        )
        return own - without

    def raw(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own, without = (
            captioner.decode(tokens[:, :-1], memory._replace(mask=mask))[0]
            for mask in (None, ~cells.flatten(1))
        )
        return (own - without).gather(2, tokens[:, 1:, None])[..., 0]

    def rolled(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own = parts(captioner, memory, tokens, None)[0]
        moved = memory._replace(tokens=memory.tokens.roll(1, 0))
        return own - parts(captioner, moved, tokens, ~cells.flatten(1))[1]

    def not_flat(captioner: Captioner, memory: Memory, tokens: Tensor, cells: Tensor) -> Tensor:
        own, without = parts(captioner, memory, tokens, ~cells)
        return own - without

    assert_told_apart(
        check_hidden_drop,
        right=[right, other],
        wrong={
            "the mask is turned": turned,
            "the sign is turned": lambda *given: -other(*given),
            "differences of probabilities": of_p,
            "subtract it from that": lambda c, m, t, cells: parts(c, m, t, ~cells.flatten(1))[1],
            "set to 0": zeroed,
            "raw logits": raw,
            "the cells of picture 0": lambda c, m, t, cells: other(
                c, m, t, cells[:1].expand_as(cells)
            ),
            "the cells of another one": lambda c, m, t, cells: other(c, m, t, cells.roll(1, 0)),
            "the tokens of another picture": rolled,
            "flat over the cells": not_flat,
            "nothing changed": lambda *given: other(*given) * 0,
            "(B, T - 1)": lambda *given: other(*given)[0],
            "the numbers differ": lambda *given: 2 * other(*given),
            "nothing comes back": lambda *given: None,
        },
    )


def test_relative_maps() -> None:
    assert_told_apart(
        check_relative,
        right=[solution("09", "9.3")["relative"], relative_attention],
        wrong={
            "its own mean over the cells": lambda m: m / m.mean(dim=(1, 2), keepdim=True),
            "over the rows of the grid": lambda m: m / m.mean(dim=1, keepdim=True),
            "over the columns of the grid": lambda m: m / m.mean(dim=2, keepdim=True),
            "has the shape (rows, cols)": lambda m: m / m.mean(1),
            "the mean is subtracted": lambda m: m - m.mean(dim=0),
            "the sum over the words": lambda m: m / m.sum(dim=0),
            "brought to the sum 1": lambda m: (
                relative_attention(m) / relative_attention(m).sum(dim=(1, 2), keepdim=True)
            ),
            "without the word itself": lambda m: m / ((m.sum(dim=0) - m) / (len(m) - 1)),
            "swapped": lambda m: m.mean(dim=0) / m,
            "has other numbers": changed_in_place(relative_attention),
            "(words, rows, cols)": lambda m: m.mean(dim=0),
            "nothing comes back": lambda m: None,
        },
    )


def test_what_a_relation_needs() -> None:
    table = needs()
    right = {name: mean for name, (mean, _, _) in table.items()}
    # As the lesson says: both that the statement is about, and not the third.
    assert min(right["subject"], right["other"]) > 0.5 > 0.1 > right["third"]
    assert_told_apart(
        check_need,
        right=[
            solution("09", "9.4")["need"],
            {name: torch.tensor(mean) for name, mean in right.items()},
        ],
        wrong={
            "the sign is turned": {name: -mean for name, mean in right.items()},
            "the median": {name: median for name, (_, _, median) in table.items()},
            "differences of probabilities": {name: of_p for name, (_, of_p, _) in table.items()},
            "scenes 0 to 119": {name: mean for name, (mean, _, _) in needs(120).items()},
            "scenes of seed 0": {name: mean for name, (mean, _, _) in needs(seed=0).items()},
            "third: 0.000 nats is not": right | {"third": 0.0},
            "are swapped": right | {"subject": right["other"], "other": right["subject"]},
            "no number for": {"subject": 1.0},
            "is no number": dict.fromkeys(right, "much"),
            "a dictionary": 1.0,
            "subject: 2.000 nats is not": dict.fromkeys(right, 2.0),
        },
    )


def test_a_statement_names_its_objects() -> None:
    scenes = [make_scene(TEST_SEED, index) for index in range(40)]
    stated = [(scene, s) for scene in scenes if (s := first_statement(scene)) is not None]
    assert len(stated) > 5
    for scene, statement in stated:
        words = scene.caption.split()
        assert sorted((statement.subject, statement.other, statement.third)) == [0, 1, 2]
        subject, other = (scene.objects[thing] for thing in (statement.subject, statement.other))
        before, after = words[: statement.row], words[statement.row :]
        assert subject.colour in before and subject.shape in before
        phrase = [w for w in after if w in (other.size, other.colour, other.shape)]
        assert phrase[:3] == [other.size, other.colour, other.shape]


def test_a_shape_has_its_map_at_the_row_that_predicts_it_and_a_colour_one_later() -> None:
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, Captioner)
    figures = ground(captioner, [make_scene(TEST_SEED, index) for index in range(60)])
    hits = {(f.kind, f.align): f.hits for f in figures if f.block == 1 and f.head is None}
    assert hits["shape", "predicts"] > hits["shape", "reads"] + 0.3
    assert hits["colour", "reads"] > hits["colour", "predicts"]
    assert hits["size", "reads"] > hits["size", "predicts"] + 0.3
