"""Whether captions of the built-in scenes are true: the objects of a scene are known.

A caption is read in three steps.

1. Phrases. Words of size, colour and shape that stand side by side are one phrase; a shape ends
   it. After "the", a phrase whose words all stand in an earlier phrase names that one again and is
   no phrase of its own; in all other places articles change nothing.
2. Objects. Phrases are matched one to one to the objects of the scene so that the largest number of
   words agree; where several matchings tie, the one with more phrases wholly right, then the one in
   which earlier phrases get earlier objects. Where no word agrees there is no match.
3. Statements. Each phrase of `RELATIONS`, and "between", is one. It is about the phrase (or two
   phrases, joined by "and") directly after it. Its subject is the phrase directly before it ("is",
   "sits", "can be seen" may stand between), or after "and" the subject of the statement before, or,
   where no phrase comes before it, the one that follows ("left of B there is A", "… sits A").
   It is true when its phrases are matched to different objects, with two or three words that agree
   (one word, such as "small", names nothing), and the rules by which captions are written call
   their places so: `relation` knows one word for each pair, so that "near" is false where captions
   say "left of". A statement with a part missing is false.

At the border between "left of" and "to the upper left of" a hair decides. With a tolerance a
statement is true also where it would be if its subject lay so far up, down, left or right at most.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from minivit.data.scenes.captions import RELATIONS, is_between, relation
from minivit.data.scenes.dataset import Scene
from minivit.data.scenes.objects import COLOURS, SHAPES, SIZES, Body

_ATTRIBUTES = {*SIZES, *COLOURS, *SHAPES}
_ARTICLES = {"a", "the", "one", "single"}
_VERBS = {"there", "is", "sits", "can", "be", "seen"}
_RELATION_WORDS = {tuple(p.split()): name for name, phrases in RELATIONS.items() for p in phrases}
_RELATION_WORDS |= {("between",): "between"}
_LONGEST = max(map(len, _RELATION_WORDS))

Phrase = tuple[str, ...]


class _Statement(NamedTuple):
    """Indices of phrases; None where a part is missing."""

    name: str
    subject: int | None
    others: tuple[int, ...] | None


def scene_scores(
    captions: Sequence[str], scenes: Sequence[Scene], *, tolerance: float = 0.0
) -> dict[str, float]:
    """How much of what captions say is true of their scenes; see the module's docstring.

    Args:
        captions: Captions, one a scene.
        scenes: Scenes of `make_scene`.
        tolerance: How far from its place the subject of a statement may be thought to lie, in
            shorter sides of the picture; 0: the one word by which captions are written is true.

    Returns:
        Shares from 0 to 1, over all captions together:
        "attribute_words": right words of size, colour and shape / the larger of the number of these
        words in the caption and of those that belong there (three an object), summed over
        captions; phrases that name an object again do not count;
        "exact_objects": captions with as many phrases as objects, each phrase being the three
        words of its object in any order / captions;
        "relations": true statements / statements; not a number when there is no statement;
        "whole": captions with exact objects whose statements are all true, and which make one where
        there are several objects / captions.

    Raises:
        ValueError: No captions, or another number of them than of scenes.
    """
    if not captions or len(captions) != len(scenes):
        counts = f"{len(captions)} captions and {len(scenes)} scenes"
        raise ValueError(f"{counts}; expected as many of both, one or more")
    right, words = 0, 0  # words of size, colour and shape
    exact, whole = 0, 0  # captions
    true, stated = 0, 0  # statements
    for caption, scene in zip(captions, scenes, strict=True):
        bodies = _bodies(scene)
        phrases, statements = _read(caption)
        objects = _match(phrases, bodies)
        pairs = [(p, bodies[o]) for p, o in zip(phrases, objects, strict=True) if o is not None]
        right += sum(_agreement(phrase, body) for phrase, body in pairs)
        words += max(sum(map(len, phrases)), 3 * len(bodies))
        num_exact = sum(_is_exact(*pair) for pair in pairs)
        is_exact = len(phrases) == len(bodies) and num_exact == len(bodies)
        meant = [
            o if o is not None and _agreement(p, bodies[o]) > 1 else None
            for p, o in zip(phrases, objects, strict=True)
        ]
        truths = [_is_true(statement, meant, bodies, tolerance) for statement in statements]
        true, stated = true + sum(truths), stated + len(truths)
        exact += is_exact
        whole += is_exact and all(truths) and (len(bodies) == 1 or bool(truths))
    return {
        "attribute_words": right / words,
        "exact_objects": exact / len(captions),
        "relations": true / stated if stated else float("nan"),
        "whole": whole / len(captions),
    }


def _bodies(scene: Scene) -> list[Body]:
    """The objects in units of the shorter side, in which the rules of relations are written."""
    short = min(scene.image.size)
    return [
        Body(
            shape=thing.shape,
            colour=thing.colour,
            size=thing.size,
            row=thing.centre[0] / short,
            column=thing.centre[1] / short,
            radius=thing.radius / short,
            angle=thing.angle,
        )
        for thing in scene.objects
    ]


def _read(caption: str) -> tuple[list[Phrase], list[_Statement]]:
    """The phrases of a caption, and its statements about them."""
    words = re.findall("[a-z]+", caption.lower())
    phrases: list[Phrase] = []
    symbols: list[int | str] = []  # the index of a phrase; a relation's name, marked; another word
    position = 0
    while position < len(words):
        for length in range(_LONGEST, 0, -1):
            if name := _RELATION_WORDS.get(tuple(words[position : position + length])):
                symbols.append(f">{name}")
                position += length
                break
        else:
            end = position
            while end < len(words) and words[end] in _ATTRIBUTES:
                end += 1
                if words[end - 1] in SHAPES:
                    break
            if end > position:
                again = position > 0 and words[position - 1] == "the"
                symbols.append(_phrase_index(phrases, tuple(words[position:end]), again))
            elif words[position] not in _ARTICLES:
                symbols.append(words[position])
            position = max(end, position + 1)
    return phrases, _statements(symbols)


def _phrase_index(phrases: list[Phrase], phrase: Phrase, again: bool) -> int:
    """The earlier phrase that this one names again, else its own place at the end."""
    if again:
        for index, earlier in enumerate(phrases):
            if set(phrase) <= set(earlier):
                return index
    phrases.append(phrase)
    return len(phrases) - 1


def _statements(symbols: list[int | str]) -> list[_Statement]:
    """Relations with the phrases that they are about."""
    statements: list[_Statement] = []
    for place, symbol in enumerate(symbols):
        if not isinstance(symbol, str) or symbol[0] != ">":
            continue
        others: tuple[int, ...] | None = None
        match symbol, symbols[place + 1 : place + 4]:
            case ">between", [int() as one, "and", int() as two]:
                others, after = (one, two), place + 4
            case str() as name, [int() as one, *_] if name != ">between":
                others, after = (one,), place + 2
            case _:
                after = len(symbols)
        before = [s for s in symbols[:place] if s not in _VERBS]
        subject: int | str | None = before[-1] if before else None
        if subject == "and":
            subject = statements[-1].subject if statements else None
        elif not any(isinstance(s, int) for s in before):
            subject = next((s for s in symbols[after:] if s not in _VERBS), None)
        known = subject if isinstance(subject, int) else None
        statements.append(_Statement(symbol[1:], known, others))
    return statements


def _agreement(phrase: Phrase, body: Body) -> int:
    """Number of the object's three words that a phrase has."""
    return (body.size in phrase) + (body.colour in phrase) + (body.shape in phrase)


def _is_exact(phrase: Phrase, body: Body) -> bool:
    return sorted(phrase) == sorted((body.size, body.colour, body.shape))


def _match(phrases: Sequence[Phrase], bodies: Sequence[Body]) -> list[int | None]:
    """The object of each phrase: the best matching, phrase by phrase over sets of taken objects."""
    Choice = tuple[int, int, tuple[int, ...]]  # words that agree, exact phrases, -1 - object or ...
    none = -1 - len(bodies)
    best: dict[frozenset[int], Choice] = {frozenset(): (0, 0, ())}
    for phrase in phrases:
        longer: dict[frozenset[int], Choice] = {}
        for taken, (words, exact, chosen) in best.items():
            options = [(taken, (words, exact, (*chosen, none)))]
            for index, body in enumerate(bodies):
                if index not in taken and (agree := _agreement(phrase, body)):
                    choice = (words + agree, exact + _is_exact(phrase, body), (*chosen, -1 - index))
                    options.append((taken | {index}, choice))
            for key, choice in options:
                longer[key] = max(choice, longer.get(key, choice))
        best = longer
    _, _, chosen = max(best.values())
    return [None if place == none else -1 - place for place in chosen]


def _is_true(
    statement: _Statement, objects: Sequence[int | None], bodies: Sequence[Body], tolerance: float
) -> bool:
    """Whether the objects that the phrases mean lie as the statement says; None: no object."""
    if statement.subject is None or statement.others is None:
        return False
    places = [objects[index] for index in (statement.subject, *statement.others)]
    chosen = [bodies[place] for place in places if place is not None]
    if len(chosen) < len(places) or len(set(places)) < len(places):
        return False
    subject, *others = chosen
    steps = (0.0, -tolerance, tolerance)
    moved = [
        dataclasses.replace(subject, row=subject.row + down, column=subject.column + right)
        for down, right in itertools.product(steps, steps)
    ]
    if statement.name == "between":
        return any(is_between(body, *others) for body in moved)
    return any(relation(body, *others) == statement.name for body in moved)
