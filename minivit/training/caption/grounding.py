"""Whether a captioner looks at what it speaks of: the pointing game on scenes.

For every word of a true caption that belongs to an object (its size, colour and shape) the map of
that word, and the object's mask. A hit: some of the object lies in the strongest cell (Zhang et al.
2016, arXiv:1608.00507, with the cell as tolerance). Mass: the map's weight in the object's cells,
each cell counted by the share of it that the object covers, beside the object's share of the
picture. Chance: what a cell drawn at random would hit.

The captions are the true ones, fed word by word: which object a word means is then known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.captioner import Captioner
from minivit.data.scenes.dataset import COLOURS, SHAPES, SIZES, Scene

KINDS = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "size": tuple(SIZES)}


class Grounding(NamedTuple):
    """Figures of one kind of word in one layer and head; shares from 0 to 1.

    Attributes:
        kind: "shape", "colour" or "size".
        layer: Decoder block.
        head: None: mean over heads.
        align: Whose map a word has, see `minivit.generation`.
        hits: Share of words whose strongest cell shows some of the object.
        chance: Share of cells that do.
        mass: Mean weight of the map on the object.
        area: Mean share of the picture that the object covers.
        words: How many words there were.
    """

    kind: str
    layer: int
    head: int | None
    align: str
    hits: float
    chance: float
    mass: float
    area: float
    words: int


@torch.inference_mode()
def ground(
    captioner: Captioner, scenes: Sequence[Scene], *, batch_size: int = 250
) -> list[Grounding]:
    """Plays the pointing game with every layer, head and alignment.

    Args:
        captioner: Of scenes, in eval mode.
        scenes: With their captions and masks.
        batch_size: Scenes at once.
    """
    config, tokenizer = captioner.config, captioner.tokenizer
    sums: dict[tuple[str, int, int, str], list[float]] = {}  # of hits, chance, mass, area, words
    for start in range(0, len(scenes), batch_size):
        part = scenes[start : start + batch_size]
        memory = captioner.encode_photos([scene.image for scene in part])
        encoded = [
            [tokenizer.start_id, *tokenizer.encode(scene.caption), tokenizer.end_id]
            for scene in part
        ]
        length = max(map(len, encoded))
        ids = torch.tensor(
            [ids + [tokenizer.pad_id] * (length - len(ids)) for ids in encoded],
            device=memory.tokens.device,
        )
        _, _, cross = captioner.decode(ids, memory, need_weights=True)
        places = _object_words(part, memory.grid)
        for layer in range(config.decoder_depth):
            weights = cross[layer].float().cpu()  # (B, H, T, M)
            maps = torch.cat([weights.mean(1, keepdim=True), weights], dim=1)  # (B, 1 + H, T, M)
            for index, word, kind, shares in places:
                for shift, align in enumerate(("predicts", "reads")):
                    seen = maps[index, :, word + shift]  # (1 + H, M)
                    peak = shares[seen.argmax(dim=-1)] > 0
                    mass = seen @ shares
                    for head in range(maps.shape[1]):
                        found = sums.setdefault((kind, layer, head - 1, align), [0.0] * 5)
                        found[0] += float(peak[head])
                        found[1] += float((shares > 0).float().mean())
                        found[2] += float(mass[head])
                        found[3] += float(shares.mean())
                        found[4] += 1
    return [
        Grounding(
            kind=kind,
            layer=layer,
            head=None if head < 0 else head,
            align=align,
            hits=hits / words,
            chance=chance / words,
            mass=mass / words,
            area=area / words,
            words=int(words),
        )
        for (kind, layer, head, align), (hits, chance, mass, area, words) in sums.items()
    ]


def _object_words(
    scenes: Sequence[Scene], grid: tuple[int, int]
) -> list[tuple[int, int, str, Tensor]]:
    """(scene, word, kind, (M,) share of each cell that the word's object covers)."""
    found = []
    for index, scene in enumerate(scenes):
        for word, (text, thing) in enumerate(
            zip(scene.caption.split(), scene.word_objects, strict=True)
        ):
            kind = next((kind for kind, words in KINDS.items() if text in words), None)
            if thing is None or kind is None:
                continue
            mask = torch.from_numpy(scene.objects[thing].mask).float()[None, None]
            shares = torch.nn.functional.adaptive_avg_pool2d(mask, grid).flatten()
            found.append((index, word, kind, shares))
    return found


def best(rows: Sequence[Grounding], kind: str, align: str = "predicts") -> Grounding:
    """The layer and head whose map of this kind of word points best."""
    return max(
        (row for row in rows if row.kind == kind and row.align == align), key=lambda row: row.hits
    )
