"""What is given to CATR, and how its large outputs are sampled: for make_catr.py and for the tests.

Neither the pictures nor the 84 million weights are stored: both are made from seeded numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.references.seeded import foreign_weights, seeded

SEED = 17  # captions of many words, and none of them chosen by a hair: margins above 0.04

START, END, LENGTH = 101, 102, 128  # [CLS], [SEP], places in a caption
STEPS = 12  # of greedy decoding
HEAD_STEPS = (0, 5, 11)  # whose attention is stored head by head
SELF_LAYER = 2  # the decoder layer whose self-attention is stored
POSITIONS = (0, 3, 7, 11, 40)  # 40 is in the padding, where training computes a loss too

# (width, height). CATR makes 299 x 224 and 203 x 298 of them: 550 · (299 / 550) is below 299.
PICTURES = {"landscape": (400, 300), "portrait": (374, 550)}
ROWS = {
    "landscape": (101, 1037, 2158, 5559, 1037, 4400, 2006, 2327, 1997, 1037, 14175, 1012),
    "portrait": (101, 2048, 14695, 3564, 2006, 1037, 3536, 6847, 1012),
}  # word-pieces of captions, start token first


def picture(name: str) -> Image.Image:
    """A picture of `PICTURES`: soft colours with grain, in whole numbers throughout."""
    width, height = PICTURES[name]
    colours = seeded(f"picture.{name}", (6, 7, 3), SEED).numpy()
    coarse = np.rint((colours + np.sqrt(3.0)) * 73).astype(np.int64)
    rows = _stretch(coarse, height)  # (6, 7, 3) -> (height, 7, 3)
    smooth = _stretch(rows.swapaxes(0, 1), width).swapaxes(0, 1)  # -> (height, width, 3)
    grain = np.rint(seeded(f"grain.{name}", (height, width, 3), SEED).numpy() * 12).astype(np.int64)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def _stretch(values: np.ndarray, length: int) -> np.ndarray:
    """Linear interpolation along the first axis."""
    place = np.arange(length) * (len(values) - 1) * 256 // length
    low, part = place // 256, (place % 256)[:, None, None]
    return (values[low] * (256 - part) + values[low + 1] * part) // 256


def sample(tensor: Tensor, count: int = 600) -> Tensor:
    """About `count` numbers, evenly spaced in the flattened tensor; all of a small one.

    The step is odd, so that it does not keep to one column.
    """
    return tensor.flatten()[:: max(1, tensor.numel() // count) | 1]


def statistics(logits: Tensor) -> Tensor:
    """(…, words) -> (…, 5): mean, standard deviation, smallest, largest, log-sum-exp."""
    found = (
        logits.mean(-1),
        logits.std(-1),
        logits.amin(-1),
        logits.amax(-1),
        logits.logsumexp(-1),
    )
    return torch.stack(found, dim=-1)


def caption_row(name: str, *, training: bool = False) -> tuple[Tensor, Tensor]:
    """The tokens of `ROWS` with zeros behind, and CATR's mask, True = padding; each (1, LENGTH).

    In `training` as the tokenizer makes them there: END behind the words, and (1, LENGTH + 1). All
    but the last are what the model is given, all but the first what it should say.
    """
    words = ROWS[name] + (END,) * training
    tokens = torch.zeros(1, LENGTH + training, dtype=torch.long)
    tokens[0, : len(words)] = torch.tensor(words)
    return tokens, tokens == 0


def catr_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights by the names of CATR's `state_dict()`, or of a ResNet's: `foreign_weights`, amended.

    Two things that training brings about would be missing, and captions be one word all over:
    rows that sum to zero where a matrix follows a relu, without which the mean of the relu drowns
    what is different between pictures and between words; and attention that is far from uniform.
    """
    weights = foreign_weights(shapes, seed)
    behind_relu = ("input_proj.weight", "linear2.weight", "layers.1.weight", "layers.2.weight")
    for name, values in weights.items():
        if name.endswith(behind_relu):
            values -= values.mean(1, keepdim=True)
        elif name.endswith("in_proj_weight"):
            values[: 2 * values.shape[1]] *= 2.0  # those of Q and K
    return weights
