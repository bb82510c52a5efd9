"""Captions: minivit's cached decoding beside CATR's own loop, beams beside greedy, batches.

    python -m benchmarks.caption_speed              (without CATR: beams and batches only)
    python -m benchmarks.caption_speed ../catr      (a checkout, as tests/references/make_catr.py)

The network is CATR's, whole, with seeded weights, the same in both; the picture 299 x 224. CATR's
`predict.py` runs as it is, the whole network once a word; only its model is wrapped, so that it
says the end token after a fixed number of words. minivit is told to stop there by `max_length`.
Its figures include preprocessing and, in "with maps", the pass that makes the map of every word.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.turns import take_turns
from minivit.captioner import Captioner
from minivit.generation import generate
from tests.catr import catr, weights
from tests.references.catr_inputs import END, LENGTH, picture


class Counted:
    """CATR's model, which after so many words says END."""

    def __init__(self, model: Any, words: int) -> None:
        self.model, self.words, self.calls = model, words, 0

    def eval(self) -> None:
        """As predict.py wants."""
        self.model.eval()

    def __call__(self, *inputs: Tensor) -> Tensor:
        predictions = self.model(*inputs)
        if self.calls == self.words:
            return torch.eye(END + 1)[END].expand(1, LENGTH, -1)
        predictions[0, self.calls, END] = -torch.inf
        self.calls += 1
        return predictions


def their_loop(path: str) -> Callable[[Image.Image, int], object]:
    """CATR's predict.py with the same weights."""
    from tests.references.make_catr import load_catr, predict

    theirs = load_catr(path)
    model, _ = theirs.caption.build_model(theirs.config)
    model.load_state_dict(weights())
    model.eval()
    return lambda photo, words: predict(theirs, Counted(model, words), photo)


@torch.inference_mode()
def write(captioner: Captioner, photos: list[Image.Image], length: int, beams: int = 1) -> None:
    """Sentences without their maps."""
    memory = captioner.encode_photos(photos)
    generate(captioner.next_words(memory), beam_size=beams, max_length=length)


def compare(
    name: str, cases: dict[str, Callable[[], object]], rounds: int, scale: float = 1
) -> None:
    """Prints the median ratio of the first case to each other one, taken within a round."""
    times = take_turns(cases, rounds)
    first, *others = times
    for other in others:
        ratios = [scale * a / b for a, b in zip(times[first], times[other], strict=True)]
        print(
            f"{name}: {first} {statistics.median(times[first]):.2f} s, {other} "
            f"{statistics.median(times[other]):.2f} s: ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def main() -> None:
    """Prints one line a comparison."""
    captioner = catr()
    with torch.no_grad():
        captioner.head[2].bias[END] = -1e4  # no sentence ends by itself: lengths are equal
    photo = picture("landscape")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if len(sys.argv) > 1:
        loop = their_loop(sys.argv[1])
        for words, rounds in ((12, 3), (100, 1)):
            cases: dict[str, Callable[[], object]] = {
                "CATR's loop": partial(loop, photo, words),
                "minivit": partial(write, captioner, [photo], words + 1),
                "with maps": partial(captioner.caption, [photo], max_length=words + 1),
            }
            compare(f"{words} words", cases, rounds)
    for words in (12, 100):
        compare(
            f"beam 4 of {words} words",
            {
                "beam 4": partial(write, captioner, [photo], words + 1, 4),
                "greedy": partial(write, captioner, [photo], words + 1),
            },
            5,
        )
    several = [photo] * 8

    def one_by_one() -> None:
        for each in several:
            write(captioner, [each], 13)

    compare(
        "8 pictures, 12 words",
        {"one at a time": one_by_one, "a batch of 8": partial(write, captioner, several, 13)},
        5,
    )
    compare(
        "of which the backbone",
        {
            "one at a time": lambda: [captioner.encode_photos([each]) for each in several],
            "a batch of 8": lambda: captioner.encode_photos(several),
        },
        5,
    )


if __name__ == "__main__":
    main()
