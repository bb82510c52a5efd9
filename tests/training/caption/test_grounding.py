"""The pointing game: a captioner whose maps are known beforehand."""

from __future__ import annotations

import pytest
import torch

from minivit.captioner import Captioner
from minivit.data.scenes.dataset import SHAPES, make_scene
from minivit.training.caption.grounding import best, ground
from minivit.training.caption.plan import make_captioner
from minivit.training.recipes import CaptionRecipe, make_recipe


class Pointer(Captioner):
    """Looks at the top left cell when it predicts, whatever it sees; one head at the last cell."""

    def decode(self, tokens, memory, **options):  # type: ignore[no-untyped-def]
        logits, words, _ = super().decode(tokens, memory, **options)
        weights = torch.zeros(len(tokens), 4, tokens.shape[1], memory.tokens.shape[1])
        weights[:, :3, :, 0] = 1.0
        weights[:, 3, :, -1] = 1.0
        return logits, words, [weights] * self.config.decoder_depth


def test_the_pointing_game_counts_peaks_and_mass() -> None:
    """A captioner that always looks at one cell hits as often as that cell shows the object."""
    scenes = [make_scene(4, index, image_size=64) for index in range(60)]
    plain = make_captioner(make_recipe(CaptionRecipe, "scenes_captioner"))
    pointer = Pointer(plain.config, plain.tokenizer, preprocess=plain.preprocess).eval()
    rows = ground(pointer, scenes, batch_size=25)
    assert len(rows) == 3 * 2 * 5 * 2  # kinds, blocks, heads and their mean, alignments
    words = hits = mass = 0.0
    for scene in scenes:
        for word, thing in zip(scene.caption.split(), scene.word_objects, strict=True):
            if thing is not None and word in SHAPES:
                cell = scene.objects[thing].mask[:8, :8]
                words, hits, mass = words + 1, hits + bool(cell.any()), mass + float(cell.mean())
    for row in rows:
        if row.kind == "shape" and row.head in (0, 1, 2):
            assert (row.words, row.hits) == (words, pytest.approx(hits / words))
            assert row.mass == pytest.approx(mass / words, abs=1e-6)
    corner = best(rows, "shape")
    assert corner.hits == max(row.hits for row in rows if row.kind == "shape")
    assert 0.1 < corner.chance < 0.3 and 0.03 < corner.area < 0.15
