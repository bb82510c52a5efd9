"""Small recipes and a small vocabulary for the tests of captioners."""

from __future__ import annotations

from typing import Any

from minivit.training.recipes import CaptionRecipe, make_recipe

SMALL = {
    "dim": 32, "num_heads": 2, "hidden_dim": 32, "encoder_depth": 0, "decoder_depth": 1,
    "head_dim": 16, "workers": 0,
}  # fmt: skip
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "left", "of", "cat", ".")


def recipe(name: str = "scenes_captioner", **values: Any) -> CaptionRecipe:
    return make_recipe(CaptionRecipe, name, SMALL | values)
