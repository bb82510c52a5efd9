"""Captions as tensors: cut as CATR cuts, the same for any number of workers, padded and masked."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from minivit.data.captions.dataset import (
    CaptionDataset,
    CaptionedPicture,
    CaptionSet,
    SceneCaptions,
    collate_captions,
    encode_caption,
)
from minivit.data.loading import load_all
from minivit.data.scenes.dataset import CAPTION_WORDS, draw_captioned, make_scene
from minivit.preprocess import BadImageError
from minivit.tokenizer import WordLevel, WordPiece
from minivit.training.caption.scene_truth import scene_scores

WORDS = WordLevel(["a", "b", "c", "d", "e"])
PAD, START, END = WORDS.pad_id, WORDS.start_id, WORDS.end_id


def ids(text: str) -> list[int]:
    return [START, *WORDS.encode(text), END]


# ---- one caption ------------------------------------------------------------------------------


def test_a_caption_is_start_tokens_end() -> None:
    assert encode_caption(WORDS, "a b c", 5) == (ids("a b c"), False)
    assert encode_caption(WORDS, "a b c", 100) == (ids("a b c"), False)


def test_a_caption_that_is_too_long_keeps_its_end() -> None:
    assert encode_caption(WORDS, "a b c d", 5) == (ids("a b c"), True)
    assert encode_caption(WORDS, "a b c d", 3) == (ids("a"), True)
    with pytest.raises(ValueError, match="max_length is 2"):
        encode_caption(WORDS, "a", 2)


@pytest.mark.parity
@pytest.mark.parametrize("max_length", [3, 7, 8, 129])
def test_captions_are_cut_as_catr_cuts_them(tmp_path: Path, max_length: int) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "snow", "##board", "##ers", "two"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    theirs = transformers.BertTokenizer(str(path))
    for text in (
        "two",
        "two snowboarders",
        "two snowboarders two two",
        "two two snowboarders",
        "two " * 200,
    ):
        expected = theirs(text, max_length=max_length, truncation=True)["input_ids"]
        assert encode_caption(WordPiece(vocabulary), text, max_length)[0] == expected


# ---- photos -----------------------------------------------------------------------------------

TEXTS = (("a b", "b c d"), ("c",), ("d e a b c", "e", "a"))


@pytest.fixture
def photos(tmp_path: Path) -> CaptionSet:
    """Three photos of different sizes, (height, width) 4 × 6, 8 × 5 and 6 × 9, with captions."""
    pictures = []
    for index, ((height, width), texts) in enumerate(
        zip([(4, 6), (8, 5), (6, 9)], TEXTS, strict=True)
    ):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / f"{index}.png"
        Image.fromarray(pixels).save(path)
        pictures.append(CaptionedPicture(path, texts))
    return CaptionSet(tuple(pictures), "three photos")


def test_items_are_all_pairs_of_a_picture_and_a_caption(photos: CaptionSet) -> None:
    data = CaptionDataset(photos, WORDS)
    pairs = [(place, text) for place, texts in enumerate(TEXTS) for text in texts]
    assert len(data) == len(pairs) == 6
    for index, (place, text) in enumerate(pairs):
        picture, caption = data[index]
        with Image.open(photos.pictures[place].path) as image:
            assert np.array_equal(picture.permute(1, 2, 0).numpy(), np.asarray(image))
        assert picture.dtype == torch.uint8
        assert picture.is_contiguous()
        assert caption.dtype == torch.int64
        assert caption.tolist() == ids(text)
    for index in (-1, 6):
        with pytest.raises(IndexError, match="data set of 6"):
            data[index]


def test_captions_that_were_cut_are_counted_and_said(photos: CaptionSet) -> None:
    seen: list[int] = []
    data = CaptionDataset(photos, WORDS, max_length=4, on_captions=seen.append)
    assert seen == [2, 1, 3]
    assert data.truncated == 2
    assert data.description == "three photos; 2 captions cut to 4 tokens"
    assert data[1][1].tolist() == ids("b c")
    assert CaptionDataset(photos, WORDS).truncated == 0
    with pytest.raises(ValueError, match="max_length is 2"):
        CaptionDataset(photos, WORDS, max_length=2)


def noisy(image: Image.Image, rng: np.random.Generator) -> Tensor:
    """A transform at random: mirrored or not, and noise. (H, W, 3) -> (3, H, W)."""
    pixels = np.asarray(image).transpose(2, 0, 1) / 255
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    return torch.from_numpy(pixels + rng.random(pixels.shape)).float()


def epochs(data: CaptionDataset, workers: int) -> list[list[Tensor]]:
    """The tensors of two epochs, with workers that live through both."""
    collate = functools.partial(collate_captions, pad_id=PAD)
    loader = DataLoader(
        data,
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
    )
    passes = []
    for epoch in range(2):
        data.set_epoch(epoch)
        passes.append([tensor for batch in loader for tensor in batch])
    return passes


def test_what_is_drawn_comes_from_seed_epoch_and_index_alone(photos: CaptionSet) -> None:
    def make(seed: int) -> CaptionDataset:
        return CaptionDataset(photos, WORDS, transform=noisy, seed=seed)

    torch.manual_seed(1)
    alone = epochs(make(0), 0)
    torch.manual_seed(2)
    np.random.seed(2)
    for workers in (1, 2):
        for one, two in zip(alone, epochs(make(0), workers), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    data = make(0)
    first = [data[index][0] for index in (2, 0, 1)]  # in another order
    assert torch.equal(first[1], alone[0][0][0, :, :4, :6])
    assert not torch.equal(alone[0][0], alone[1][0])
    assert not torch.equal(make(1)[0][0], data[0][0])
    assert not torch.equal(data[0][0], data[1][0])  # two captions of one picture
    with pytest.raises(ValueError, match="seed is -1"):
        make(-1)
    with pytest.raises(ValueError, match="epoch is -1"):
        data.set_epoch(-1)


def test_a_picture_that_cannot_be_read_is_named(photos: CaptionSet) -> None:
    path = photos.pictures[1].path
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadImageError, match=r"1\.png: .*damaged"):
        CaptionDataset(photos, WORDS)[2]

    def refuse(image: Image.Image, rng: np.random.Generator) -> Tensor:
        raise BadImageError("too thin")

    with pytest.raises(BadImageError, match=r"0\.png: too thin"):
        CaptionDataset(photos, WORDS, transform=refuse)[0]


# ---- batches ----------------------------------------------------------------------------------


def items(*sizes: tuple[int, int], dtype: torch.dtype = torch.uint8) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [
        (torch.randint(1, 255, (3, *size)).to(dtype), torch.arange(1, 3 + index))
        for index, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("size", [None, (9, 20)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_batch_is_padded_at_the_right_and_at_the_bottom(
    size: tuple[int, int] | None, dtype: torch.dtype
) -> None:
    parts = items((4, 12), (8, 6), (8, 12), (1, 1), dtype=dtype)
    batch = collate_captions(parts, pad_id=99, size=size)
    assert batch.images.shape == (4, 3, *(size or (8, 12)))
    assert batch.images.dtype == dtype
    assert batch.image_mask.dtype == torch.bool
    assert batch.tokens.shape == (4, 5)
    for index, (picture, tokens) in enumerate(parts):
        _, height, width = picture.shape
        assert torch.equal(batch.images[index, :, :height, :width], picture)
        assert batch.image_mask[index, :height, :width].all()  # True = picture
        assert batch.image_mask[index].sum() == height * width
        assert not batch.images[index, :, ~batch.image_mask[index]].any()
        assert batch.tokens[index].tolist() == tokens.tolist() + [99] * (5 - len(tokens))


@pytest.mark.parametrize(
    ("parts", "size", "words"),
    [
        ([], None, "no items"),
        (items((4, 6), (6, 4)), (5, 8), r"\(6, 6\) does not fit into \(5, 8\)"),
        (items((4, 6)) + items((4, 6), dtype=torch.float32), None, "float32, expected .*uint8"),
        ([(torch.zeros(4, 6), torch.zeros(2))], None, r"\(4, 6\)"),
    ],
)
def test_what_does_not_make_a_batch_is_refused(
    parts: Sequence[tuple[Tensor, Tensor]], size: tuple[int, int] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        collate_captions(parts, 0, size=size)


# ---- scenes -----------------------------------------------------------------------------------

SCENE_WORDS = WordLevel(CAPTION_WORDS)


@pytest.mark.parametrize("difficulty", ["easy", "full"])
def test_scenes_are_those_of_make_scene(difficulty: str) -> None:
    data = SceneCaptions(7, 20, SCENE_WORDS, image_size=(48, 72), difficulty=difficulty)
    images, tokens = load_all(data)
    assert images.shape == (20, 3, 48, 72)
    assert tokens.shape == (20, 1, data.max_length)
    assert (images.dtype, tokens.dtype) == (torch.uint8, torch.int64)
    for index in range(20):
        scene = make_scene(7, index, image_size=(48, 72), difficulty=difficulty)
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), np.asarray(scene.image))
        encoded = [SCENE_WORDS.start_id, *SCENE_WORDS.encode(scene.caption), SCENE_WORDS.end_id]
        padding = [SCENE_WORDS.pad_id] * (data.max_length - len(encoded))
        assert tokens[index, 0].tolist() == encoded + padding
        assert SCENE_WORDS.decode(tokens[index, 0].tolist()) == scene.caption


def test_more_captions_of_a_scene_are_true_too() -> None:
    """The first is that of the scene; the others speak of the same objects in another order."""
    data = SceneCaptions(7, 40, SCENE_WORDS, image_size=48, num_captions=3)
    _, tokens = load_all(data)
    assert tokens.shape == (40, 3, data.max_length)
    texts = [[SCENE_WORDS.decode(ids) for ids in captions] for captions in tokens.tolist()]
    scenes = [make_scene(7, index, image_size=48) for index in range(40)]
    assert [captions[0] for captions in texts] == [scene.caption for scene in scenes]
    for number in range(3):
        assert scene_scores([captions[number] for captions in texts], scenes)["whole"] == 1.0
    assert sum(len(set(captions)) > 1 for captions in texts) > 30


def test_the_longest_caption_fits_exactly() -> None:
    # "a large red star sits <5 words> a … and a … is <5 words> the red star": 28 words
    assert SceneCaptions(0, 1, SCENE_WORDS).max_length == 30
    captions = [draw_captioned(2, index, image_size=16)[1][0] for index in range(130)]
    lengths = [len(caption.split()) for caption in captions]
    assert max(lengths) == 28
    # a tokenizer that makes three tokens of each word: "star" -> s ##ta ##r
    pieces = {piece for w in CAPTION_WORDS for piece in (w[0], f"##{w[1:-1]}", f"##{w[-1]}")}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = WordPiece([*special, *sorted(pieces - {"##"})])
    data = SceneCaptions(2, lengths.index(28) + 1, tokenizer, image_size=16)
    encoded = data[lengths.index(28)][1][0].tolist()
    assert data.max_length >= 2 + 28 * 2
    assert encoded.count(tokenizer.end_id) == 1
    assert tokenizer.unknown_id not in encoded


def test_bad_arguments_of_scenes_are_refused_before_the_first_item() -> None:
    with pytest.raises(ValueError, match=r"does not know above.*48 of the 49 words"):
        SceneCaptions(0, 10, WORDS)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        SceneCaptions(-1, 10, SCENE_WORDS)
    with pytest.raises(ValueError, match="length must be 1"):
        SceneCaptions(0, 0, SCENE_WORDS)
    with pytest.raises(ValueError, match="'hard'"):
        SceneCaptions(0, 10, SCENE_WORDS, difficulty="hard")
    for index in (-1, 10):
        with pytest.raises(IndexError, match="data set of 10"):
            SceneCaptions(0, 10, SCENE_WORDS)[index]
