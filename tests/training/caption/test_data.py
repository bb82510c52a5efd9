"""Samples of a captioner: batches in memory, photos on disk, and captions that name sides."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.captions.dataset import (
    CaptionDataset,
    CaptionedPicture,
    CaptionSet,
    collate_captions,
)
from minivit.tokenizer import WordLevel
from minivit.training.caption.data import CaptionedPhotos, mentions_sides
from minivit.training.task import Piece
from tests.test_captioner import WORDS
from tests.training.caption.test_task import PAD, samples


def test_batches_in_memory_are_no_longer_than_their_longest_caption() -> None:
    data = samples(6)
    pieces = [Piece(0, [1, 4]), Piece(1, [0, 1]), Piece(2, [5])]
    batches = list(data.load(0, pieces))
    assert [batch.tokens.shape for batch in batches] == [(2, 3), (2, 5), (1, 7)]
    for piece, batch in zip(pieces, batches, strict=True):
        length = batch.tokens.shape[1]
        assert torch.equal(batch.images, data.images[piece.indices])
        assert torch.equal(batch.tokens, data.tokens[piece.indices, 0, :length])
        assert bool((data.tokens[piece.indices, 0, length:] == PAD).all())
    assert len(data) == 6


def photos(folder: Path, workers: int) -> CaptionedPhotos:
    """Three photos of different sizes with two captions each, noise added at random."""
    pictures = []
    for index in range(3):
        path = folder / f"{index}.png"
        Image.new("RGB", (12 + 3 * index, 10), (60 * index, 9, 200)).save(path)
        pictures.append(CaptionedPicture(path, ("a blue circle", f"the red square {'a ' * index}")))

    def transform(image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return pixels + float(rng.random())

    captions = CaptionSet(tuple(pictures), "for tests")
    data = CaptionDataset(captions, WordLevel(WORDS), transform=transform, seed=4)
    return CaptionedPhotos(data, partial(collate_captions, pad_id=PAD), workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_photos_depend_on_epoch_and_index_alone(tmp_path: Path, workers: int) -> None:
    """Not on workers, on the order, or on where a resumed run begins."""
    data = photos(tmp_path, workers)
    assert len(data) == 6
    pieces = [Piece(0, [4, 0]), Piece(1, [5]), Piece(2, [1, 2, 3])]
    plain = {index: next(photos(tmp_path, 0).load(1, [Piece(0, [index])])) for index in range(6)}
    for chosen in (pieces, pieces[2:]):
        for piece, batch in zip(chosen, data.load(1, chosen), strict=True):
            for row, index in enumerate(piece.indices):
                alone = plain[index]
                height, width = alone.images.shape[2:]
                assert torch.equal(batch.images[row, :, :height, :width], alone.images[0])
                assert batch.image_mask is not None
                assert int(batch.image_mask[row].sum()) == height * width
                words = batch.tokens[row][batch.tokens[row] != PAD]
                assert torch.equal(words, alone.tokens[0])
    other = next(data.load(2, pieces[1:2]))
    assert not torch.equal(other.images, plain[5].images)


def test_how_many_captions_say_left_or_right() -> None:
    pictures = (
        CaptionedPicture(Path("a"), ("a dog", "a dog on the left", "Right. Left!")),
        CaptionedPicture(Path("b"), ("bright lights", "left")),
    )
    assert mentions_sides(CaptionSet(pictures, "")) == 3
