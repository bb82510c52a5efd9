"""The pointing game on scenes: captioners whose maps are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit.captioner import Captioner, Memory
from minivit.data.scenes.dataset import COLOURS, SHAPES, SIZES, Scene, make_scene
from minivit.training.caption.grounding import best, best_maps, ground
from minivit.training.caption.plan import make_captioner
from minivit.training.recipes import CaptionRecipe, make_recipe

BLOCKS, HEADS, SIDE = 2, 4, 12  # of the recipe's captioner; 12 x 12 cells of 8 pixels
CELLS = SIDE * SIDE
WORDS = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "size": tuple(SIZES)}


class Pointer(Captioner):
    """Looks at one cell for each block, head and row, whatever it sees."""

    place: Callable[[int, int, int], int]

    def decode(
        self, tokens: Tensor, memory: Memory, **options: Any
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        logits, to_words, _ = super().decode(tokens, memory, **options)
        to_cells = [torch.zeros(len(tokens), HEADS, tokens.shape[1], CELLS) for _ in range(BLOCKS)]
        for block, weights in enumerate(to_cells):
            for head in range(HEADS):
                for row in range(tokens.shape[1]):
                    weights[:, head, row, self.place(block, head, row)] = 1.0
        return logits, to_words, to_cells


def make_pointer(place: Callable[[int, int, int], int]) -> Pointer:
    plain = make_captioner(make_recipe(CaptionRecipe, "scenes_captioner"))
    pointer = Pointer(plain.config, plain.tokenizer, preprocess=plain.preprocess).eval()
    pointer.place = place
    return pointer


def object_cells(scene: Scene, kind: str) -> list[tuple[int, Tensor]]:
    """For each word of this kind its number in the caption and the cells of its object."""
    words = zip(scene.caption.split(), scene.word_objects, strict=True)
    return [
        (
            number,
            torch.from_numpy(scene.objects[thing].mask).float().view(SIDE, 8, SIDE, 8).mean((1, 3)),
        )
        for number, (word, thing) in enumerate(words)
        if thing is not None and word in WORDS[kind]
    ]


def test_every_word_is_held_against_its_object() -> None:
    """Each block, head and row looks at a cell of its own; expected: counted word by word."""
    scenes = [make_scene(4, index, image_size=8 * SIDE) for index in range(30)]

    def place(block: int, head: int, row: int) -> int:
        return (19 * row + 7 * head + 37 * block + 9) % CELLS

    rows = ground(make_pointer(place), scenes, batch_size=13)
    assert len(rows) == len(WORDS) * BLOCKS * (HEADS + 1) * 2  # heads and their mean, alignments
    for row in rows:
        if row.head is None:
            continue
        hits, mass, chance, area = [], [], [], []
        for scene in scenes:
            for number, cells in object_cells(scene, row.kind):
                seen = place(row.block, row.head, number + (row.align == "reads"))
                hits.append(bool(cells.flatten()[seen] > 0))
                mass.append(float(cells.flatten()[seen]))
                chance.append(float((cells > 0).float().mean()))
                area.append(float(cells.mean()))
        expected = [sum(each) / len(hits) for each in (hits, chance, mass, area)]
        assert [row.hits, row.chance, row.mass, row.area] == pytest.approx(expected, abs=1e-6)
        assert row.words == len(hits)


def test_the_mean_over_heads_is_a_map_of_its_own() -> None:
    """Three heads look at one cell and the fourth at the last: their mean peaks at the first."""
    scenes = [make_scene(4, index, image_size=8 * SIDE) for index in range(60)]
    inside = 4 * SIDE + 4  # few objects reach the corners
    rows = ground(make_pointer(lambda block, head, row: inside if head < 3 else -1), scenes)
    figures = {(row.kind, row.block, row.align, row.head): row for row in rows}
    for (kind, block, align, head), row in figures.items():
        if head is None:
            first, last = (figures[kind, block, align, each] for each in (0, 3))
            assert row.hits == first.hits != last.hits
            assert row.mass == pytest.approx(0.75 * first.mass + 0.25 * last.mass)


def test_the_best_row_is_the_one_with_most_hits() -> None:
    """Only head 2 of block 1 looks at the one object of the scene, whichever word is said."""
    scene = make_scene(4, 0, image_size=8 * SIDE)
    cells = sum(cells for _, cells in object_cells(scene, "shape"))
    assert isinstance(cells, Tensor)
    good, bad = int(cells.argmax()), int(cells.argmin())
    rows = ground(
        make_pointer(lambda block, head, row: good if (block, head) == (1, 2) else bad), [scene]
    )
    for align in ("predicts", "reads"):
        row = best(rows, "shape", align)
        assert (row.kind, row.block, row.head, row.align) == ("shape", 1, 2, align)
        assert row.hits > 0


def test_the_best_map_of_all_words_counts_each_word_once() -> None:
    """Head 2 of block 1 points at every object; head 0 of block 0 only at the shape's step."""
    scene = make_scene(4, 0, image_size=8 * SIDE)
    shapes = [number for number, _ in object_cells(scene, "shape")]
    cells = sum(cells for _, cells in object_cells(scene, "shape"))
    assert isinstance(cells, Tensor)
    good, bad = int(cells.argmax()), int(cells.argmin())

    def place(block: int, head: int, row: int) -> int:
        always = (block, head) == (1, 2)
        at_shapes = (block, head) == (0, 0) and row in shapes
        return good if always or at_shapes else bad

    maps = best_maps(ground(make_pointer(place), [scene]))
    by_key = {(each.align, each.words): each for each in maps}
    assert len(by_key) == len(maps) == 2 * (1 + len({"shape", "colour", "size"} & set(WORDS)))
    for align in ("predicts", "reads"):
        overall = by_key[align, "all"]
        assert (overall.block, overall.head) == (1, 2) and 0 < overall.chance < overall.hits <= 1
