"""Captions of scenes: sentences about the objects, whose spatial relations are true."""

import math
from collections.abc import Callable

import numpy as np

from minivit.data.scenes.objects import COLOURS, SHAPES, SIZES, Body

RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "upper left": ("to the upper left of",),
    "upper right": ("to the upper right of",),
    "lower left": ("to the lower left of",),
    "lower right": ("to the lower right of",),
    "near": ("near", "next to", "close to"),
}
"""The ways to say each relation."""

# Capitals are slots: A is object A with an article, A:the names it again, A>B is where A is from B.
_ALONE = (
    "A",
    "there is A",
    "A on its own",
    "A:a-single on its own",
    "A:one and nothing else",
    "nothing but A",
)
_PAIR = (
    "A A>B B",
    "there is A A>B B",
    "A is A>B B",
    "A sits A>B B",
    "A can be seen A>B B",
    "A>B B there is A",
    "A>B B sits A",
)
_TRIPLE = (
    "A A>B B and A>C C",
    "A is A>B B and A>C C",
    "there is A A>B B and A>C C",
    "A A>B B with C C>A A:the",
    "A sits A>B B and C is C>A A:the",
)
_BETWEEN = (
    "A between B and C",
    "A is between B and C",
    "there is A between B and C",
    "between B and C sits A",
)


def _caption_words() -> tuple[str, ...]:
    """The words of all templates and slots, sorted."""
    templates = " ".join((*_ALONE, *_PAIR, *_TRIPLE, *_BETWEEN)).split()
    words = {word for word in templates if word.islower() and ":" not in word}
    words |= {"a", "the", "one", "single", *SIZES, *COLOURS, *SHAPES}
    return tuple(sorted(words.union(*(p.split() for ps in RELATIONS.values() for p in ps))))


CAPTION_WORDS = _caption_words()
"""Every word that a caption can contain, sorted."""


def relation(one: Body, two: Body) -> str:
    """The place of `one` as seen from `two`: a direction where it is plain, else "near"."""
    down, right = one.row - two.row, one.column - two.column
    vertical, horizontal = "above" if down < 0 else "below", "left" if right < 0 else "right"
    if abs(right) > 0.2 and abs(right) > 1.6 * abs(down):
        return horizontal
    if abs(down) > 0.2 and abs(down) > 1.6 * abs(right):
        return vertical
    if min(abs(down), abs(right)) > 0.2:
        return f"{'upper' if down < 0 else 'lower'} {horizontal}"
    return "near"


def is_between(one: Body, two: Body, three: Body) -> bool:
    """Whether `one` is close to the middle of the line from `two` to `three`."""
    down, right = three.row - two.row, three.column - two.column
    length = math.hypot(down, right)
    share = ((one.row - two.row) * down + (one.column - two.column) * right) / length**2
    aside = abs((one.row - two.row) * right - (one.column - two.column) * down) / length
    return 0.3 < share < 0.7 and aside < 0.15 * length


def longest_caption(count: Callable[[str], int]) -> int:
    """The length that no caption exceeds, where `count` gives the length of a word."""

    def words(*choices: str) -> int:
        return max(sum(count(word) for word in choice.split()) for choice in choices)

    def slot_length(slot: str) -> int:
        if slot[0].islower():
            return count(slot)
        if ">" in slot:
            return words(*(phrase for phrases in RELATIONS.values() for phrase in phrases))
        article = slot[2:] or "a"
        size = 0 if article == "the" else words(*SIZES)
        return words(article.replace("-", " ")) + size + words(*COLOURS) + words(*SHAPES)

    templates = (*_ALONE, *_PAIR, *_TRIPLE, *_BETWEEN)
    return max(sum(map(slot_length, template.split())) for template in templates)


def write_caption(rng: np.random.Generator, bodies: list[Body]) -> list[tuple[str, int | None]]:
    """A caption as pairs (word, index of the object that the word is about, or None)."""
    order: list[int] = rng.permutation(len(bodies)).tolist()
    choices: tuple[tuple[str, ...], ...] = (_ALONE, _PAIR, _TRIPLE)
    templates = choices[len(bodies) - 1]
    if len(bodies) == 3 and rng.random() < 0.7:
        for _ in range(3):
            order = order[1:] + order[:1]
            if is_between(*(bodies[i] for i in order)):
                templates = _BETWEEN
                break
    objects = dict(zip("ABC", order, strict=False))
    words: list[tuple[str, int | None]] = []
    for slot in templates[rng.integers(len(templates))].split():
        if slot[0].islower():
            words.append((slot, None))
        elif ">" in slot:
            phrases = RELATIONS[relation(bodies[objects[slot[0]]], bodies[objects[slot[2]]])]
            words += [(word, None) for word in phrases[rng.integers(len(phrases))].split()]
        else:
            index, article = objects[slot[0]], slot[2:] or "a"
            body = bodies[index]
            size = [] if article == "the" else [body.size]
            phrase = [*article.split("-"), *size, body.colour, body.shape]
            words += [(word, index) for word in phrase]
    return words
