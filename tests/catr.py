"""CATR's architecture with seeded weights, converted from its own layout: for several tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import safe_open
from torch import Tensor

from minivit.captioner import Captioner
from tests.references.catr_inputs import catr_weights
from tests.references.seeded import fingerprint
from weights_convert import convert

FILE = Path(__file__).parent / "references" / "catr.safetensors"
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}


def vocabulary(count: int = 30522) -> list[str]:
    """As long as BERT's, with its special tokens in their places; the rest is made up."""
    return [SPECIAL.get(i, f"##w{i}" if i % 7 == 3 else f"w{i}") for i in range(count)]


@cache
def references() -> tuple[dict[str, Tensor], dict[str, str]]:
    """What CATR's own code gave, and the metadata."""
    with safe_open(FILE, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def weights() -> dict[str, Tensor]:
    """By CATR's own names."""
    metadata = references()[1]
    made = catr_weights(json.loads(metadata["shapes"]), int(metadata["seed"]))
    assert fingerprint(made) == metadata["weights"]
    return made


@cache
def catr() -> Captioner:
    """The whole network: 84 million weights. Do not change it."""
    with TemporaryDirectory() as folder:
        path, words = Path(folder) / "weight493084032.pth", Path(folder) / "vocab.txt"
        torch.save({"model": weights(), "epoch": 29}, path)
        words.write_text("\n".join(vocabulary()))
        converted = convert(path, vocabulary=words)
    assert converted.format == "catr" and isinstance(converted.model, Captioner)
    return converted.model
