"""Whether a captioner looks at what it speaks of: the pointing game on scenes.

For every word of a true caption that belongs to an object (its size, colour and shape) the map of
that word is held against the object's mask, see `minivit.explain.pointing`. The captions are the
true ones, fed word by word: which object a word means is then known.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.captioner import Captioner
from minivit.data.scenes.dataset import COLOURS, SHAPES, SIZES, Scene
from minivit.explain.pointing import covered, pointing_game
from minivit.word_maps import FIRST_ROW, BestMap, decoder_input

KINDS = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "size": tuple(SIZES)}


class Grounding(NamedTuple):
    """Figures of one kind of word in one decoder block and head; fractions from 0 to 1.

    Attributes:
        kind: "shape", "colour" or "size".
        block: Number of the decoder block.
        head: Number of the head; None: mean over heads.
        align: "predicts" or "reads", see `minivit.word_maps`.
        hits: Fraction of words whose strongest cell shows some of the object.
        chance: Fraction of cells that do.
        mass: Mean weight of the map on the object.
        area: Mean fraction of the picture that the object covers.
        words: Number of words.
    """

    kind: str
    block: int
    head: int | None
    align: str
    hits: float
    chance: float
    mass: float
    area: float
    words: int


class _ObjectWords(NamedTuple):
    """The n words of some scenes that belong to an object.

    Attributes:
        scenes: (n,) index of the scene.
        words: (n,) place of the word in its caption.
        kinds: (n,) index into KINDS.
        cells: (n, rows, cols), the fraction of each cell that the object covers.
    """

    scenes: Tensor
    words: Tensor
    kinds: Tensor
    cells: Tensor


@torch.inference_mode()
def ground(
    captioner: Captioner, scenes: Sequence[Scene], *, batch_size: int = 250
) -> list[Grounding]:
    """Plays the pointing game with every decoder block, head and alignment.

    Args:
        captioner: Captioner of scenes, in eval mode.
        scenes: Scenes with their captions and masks.
        batch_size: Number of scenes at a time.
    """
    tokenizer, config = captioner.tokenizer, captioner.config
    sizes = (config.decoder_depth, len(FIRST_ROW), len(KINDS), 5, 1 + config.num_heads)
    sums = torch.zeros(sizes, dtype=torch.float64)  # 5: hits, chance, mass, area, words
    for start in range(0, len(scenes), batch_size):
        part = scenes[start : start + batch_size]
        memory = captioner.encode_photos([scene.image for scene in part])
        sentences = [[*tokenizer.encode(scene.caption), tokenizer.end_id] for scene in part]
        ids = decoder_input(sentences, tokenizer).to(memory.tokens.device)
        _, _, cross = captioner.decode(ids, memory, need_weights=True)
        spoken = _object_words(part, memory.grid)
        for block, weights in enumerate(cross):
            weights = weights.float().cpu()  # (B, H, T, M)
            maps = torch.cat([weights.mean(1, keepdim=True), weights], dim=1)  # (B, 1 + H, T, M)
            for align, first in enumerate(FIRST_ROW.values()):
                own = maps[spoken.scenes, :, spoken.words + first]  # (n, 1 + H, M)
                own = own.view(*own.shape[:2], *memory.grid)  # (n, 1 + H, M) -> (…, rows, cols)
                game = pointing_game(own, spoken.cells[:, None])
                figures = torch.stack([*game, torch.ones_like(game.mass)], dim=1)  # (n, 5, 1 + H)
                sums[block, align].index_add_(0, spoken.kinds, figures.double())
    rows = []
    for kind, block, head, align in product(
        range(len(KINDS)), range(config.decoder_depth), range(sizes[-1]), range(len(FIRST_ROW))
    ):
        hits, chance, mass, area, words = sums[block, align, kind, :, head].tolist()
        if words:
            rows.append(
                Grounding(
                    kind=tuple(KINDS)[kind],
                    block=block,
                    head=head - 1 if head else None,
                    align=tuple(FIRST_ROW)[align],
                    hits=hits / words,
                    chance=chance / words,
                    mass=mass / words,
                    area=area / words,
                    words=int(words),
                )
            )
    return rows


def _object_words(scenes: Sequence[Scene], grid: tuple[int, int]) -> _ObjectWords:
    kind_of = {word: index for index, words in enumerate(KINDS.values()) for word in words}
    places: list[tuple[int, int, int]] = []
    masks = []
    for index, scene in enumerate(scenes):
        spoken = zip(scene.caption.split(), scene.word_objects, strict=True)
        for place, (word, thing) in enumerate(spoken):
            if thing is not None and word in kind_of:
                places.append((index, place, kind_of[word]))
                masks.append(torch.from_numpy(scene.objects[thing].mask))
    indices, words, kinds = torch.tensor(places).unbind(1)  # (n, 3) -> 3 of (n,)
    return _ObjectWords(indices, words, kinds, covered(torch.stack(masks), grid))


def best_maps(rows: Sequence[Grounding]) -> tuple[BestMap, ...]:
    """For each alignment the map that points best: at all words together, and at each kind."""
    maps = []
    for align in FIRST_ROW:
        own = [row for row in rows if row.align == align]
        by_map: dict[tuple[int, int | None], list[Grounding]] = {}
        for row in own:
            by_map.setdefault((row.block, row.head), []).append(row)
        means = [
            BestMap(
                "all",
                align,
                block,
                head,
                hits=sum(row.hits * row.words for row in each) / sum(row.words for row in each),
                chance=sum(row.chance * row.words for row in each) / sum(row.words for row in each),
            )
            for (block, head), each in by_map.items()
        ]
        maps.append(max(means, key=lambda mean: mean.hits))
        for kind in dict.fromkeys(row.kind for row in own):
            row = best(rows, kind, align)
            maps.append(BestMap(kind, align, row.block, row.head, row.hits, row.chance))
    return tuple(maps)


def best(rows: Sequence[Grounding], kind: str, align: str = "predicts") -> Grounding:
    """The block and head whose map of this kind of word points best."""
    return max(
        (row for row in rows if row.kind == kind and row.align == align), key=lambda row: row.hits
    )
