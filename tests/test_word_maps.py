"""The contract that says which map belongs to which word.

It is tested on numbers, and on a captioner with planted attention: at each step it looks at a place
that is known beforehand, and says a word that is known too.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from PIL import Image
from torch import Tensor

from minivit.captioner import Captioner
from minivit.config import ResNetConfig
from minivit.generation import Hypothesis
from minivit.preprocess import Preprocess
from minivit.tokenizer import WordLevel, WordPiece
from minivit.word_maps import Align, Caption, decoder_input, describe, relative_attention
from tests.test_captioner import make_captioner, small_config

# ---- numbers ------------------------------------------------------------------------------------

COLOURS = WordLevel(["a", "blue", "red"])  # numbers 4, 5 and 6; 0 pads, 1 starts, 2 ends


def numbered(count: int, rows: int = 2, cols: int = 3) -> Tensor:
    """(1, count, rows, cols): every cell of map i holds i."""
    return torch.arange(float(count))[None, :, None, None].expand(1, count, rows, cols)


def describe_one(sentence: Hypothesis, maps: Tensor, *, align: Align = "predicts") -> Caption:
    grids, boxes = [tuple(maps.shape[2:])], [(0.0, 0.0, 30.0, 20.0)]
    return describe([sentence], maps, COLOURS, grids=grids, boxes=boxes, align=align)[0]


def test_which_map_belongs_to_which_word() -> None:
    """The rows read <start> a red <end>, and predict a red <end>."""
    sentence = Hypothesis([4, 6], [-0.1, -0.2, -0.3], ended=True, score=-0.2)
    assert decoder_input([[4, 6, COLOURS.end_id]], COLOURS).tolist() == [[1, 4, 6, 2]]
    maps = numbered(4)  # row i of the decoder looked at i
    for align, rows, row_of_end in (("predicts", [0, 1], 2), ("reads", [1, 2], 3)):
        caption = describe_one(sentence, maps, align=align)
        assert [word.text for word in caption.words] == ["a", "red"]
        assert [int(word.attention.max()) for word in caption.words] == rows
        assert caption.end_attention is not None
        assert int(caption.end_attention.max()) == row_of_end


def test_the_numbers_of_a_caption_are_those_of_its_sentence() -> None:
    sentence = Hypothesis([4, 6], [-0.1, -0.2, -0.3], ended=True, score=-0.2)
    caption = describe_one(sentence, numbered(4))
    assert (caption.text, caption.tokens, caption.token_ids) == ("a red", ["a", "red"], [4, 6])
    assert (caption.log_probs, caption.end_log_prob) == ([-0.1, -0.2], -0.3)
    assert caption.box == (0.0, 0.0, 30.0, 20.0)


def test_a_cut_sentence_has_no_end_whatever_rows_there_are() -> None:
    sentence = Hypothesis([4, 6], [-0.1, -0.2], ended=False, score=-0.15)
    for align in ("predicts", "reads"):
        caption = describe_one(sentence, numbered(6), align=align)  # in a batch of longer ones
        assert caption.end_log_prob is None and caption.end_attention is None
        assert len(caption.attention) == 2


def test_the_end_that_no_position_is_left_to_read_has_no_map() -> None:
    """With three positions, <end> is predicted by the last row and read by none."""
    sentence = Hypothesis([4, 6], [-0.1, -0.2, -0.3], ended=True, score=-0.2)
    read = decoder_input([[4, 6, COLOURS.end_id]], COLOURS, max_length=3)
    assert read.tolist() == [[1, 4, 6]]
    assert describe_one(sentence, numbered(3)).end_attention is not None
    caption = describe_one(sentence, numbered(3), align="reads")
    assert caption.end_attention is None and caption.end_log_prob == -0.3


def test_padding_of_a_batch_is_cut_off() -> None:
    """Sentences of two lengths on grids of 2 x 3 and 3 x 2, both in one of 3 x 3."""
    assert decoder_input([[4], [4, 6, 2]], COLOURS).tolist() == [[1, 4, 0, 0], [1, 4, 6, 2]]
    maps = torch.arange(2 * 4 * 9.0).view(2, 4, 3, 3)
    short = Hypothesis([4], [-0.1], ended=False, score=-0.1)
    long = Hypothesis([4, 6], [-0.1, -0.2, -0.3], ended=True, score=-0.2)
    boxes = [(0.0, 0.0, 3.0, 2.0), (0.0, 0.0, 2.0, 3.0)]
    first, second = describe([short, long], maps, COLOURS, grids=[(2, 3), (3, 2)], boxes=boxes)
    assert torch.equal(first.attention, maps[0, :1, :2, :])
    assert torch.equal(second.attention, maps[1, :2, :, :2])
    assert [first.box, second.box] == boxes


# ---- planted attention --------------------------------------------------------------------------

PIECES = ("a", "um", "##brel", "##la", ".", "on", "blue")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
SENTENCE = ("a", "um", "##brel", "##la", "on", "blue", ".")
WORDS = ("a", "umbrella", "on", "blue", ".")
GROUPS = ((0,), (1, 2, 3), (4,), (5,), (6,))
# Where each step looks, as (down, across) shares of the picture; the last is the end token's.
PLACES = (
    *((0.2, 0.9), (0.9, 0.2), (0.9, 0.55), (0.9, 0.9)),
    *((0.55, 0.2), (0.2, 0.55), (0.55, 0.9), (0.2, 0.2)),
)
ASPECTS = {"4:3": (640, 480), "1:1": (300, 300), "9:16": (270, 480)}


def sine(down: Tensor, across: Tensor, dim: int) -> Tensor:
    """The 2-D sine embedding of places that need not be cells, (n, dim)."""
    half = torch.arange(dim // 2, dtype=torch.float32)
    wavelength = 10000.0 ** (2 * (half // 2) / (dim // 2))
    parts = []
    for share in (down, across):
        angle = share[:, None] * 2 * math.pi / wavelength
        parts.append(torch.where(half % 2 == 0, angle.sin(), angle.cos()))
    return torch.cat(parts, dim=1)


@pytest.fixture(scope="module")
def planted() -> Captioner:
    """Each step looks at its place and says its word, whatever the picture shows."""
    config = small_config(
        backbone=ResNetConfig(depth=50, dilate_last_stage=True),
        vocabulary_size=len(VOCABULARY),
        max_length=10,
        dim=64,
        num_heads=2,
        encoder_depth=0,
        decoder_depth=2,
        head_dim=len(SENTENCE) + 1,
    )
    preprocess = Preprocess(
        image_size=(96, 96), mode="fit_longest", filter="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    torch.manual_seed(0)
    captioner = Captioner(config, WordPiece(VOCABULARY), preprocess=preprocess).eval()
    steps = len(SENTENCE) + 1
    places = torch.tensor(PLACES)
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if not name.startswith("backbone") and "norm" not in name:
                parameter.zero_()
        # Positions of words are those of places in the picture: a query finds its cell.
        captioner.pos_embed[0, :steps] = 8 * sine(places[:, 0], places[:, 1], 64)
        for block in captioner.decoder:
            for part in (slice(0, 64), slice(64, 128)):  # queries and keys as they are
                block.cross_attn.qkv.weight[part] = 2 * torch.eye(64)
        # From the hidden state of each step to its word, through both hidden layers.
        seen: list[Tensor] = []
        handle = captioner.decoder_norm.register_forward_hook(lambda _m, _i, out: seen.append(out))
        memory = captioner.encode_photos([Image.new("RGB", (96, 96))])
        captioner.decode(torch.zeros(1, steps, dtype=torch.long), memory)
        handle.remove()
        captioner.head[0].weight.copy_(torch.linalg.pinv(seen[0][0]).T)
        captioner.head[1].weight.copy_(torch.eye(steps))
        ids = captioner.tokenizer.encode("a umbrella on blue .")
        for step, token in enumerate([*ids, captioner.tokenizer.end_id]):
            captioner.head[2].weight[token, step] += 9.0
    return captioner


def cells(rows: int, cols: int) -> list[tuple[int, int]]:
    """The cell that each step looks at: the one whose sine embedding is nearest to the place."""
    down = (torch.arange(rows) + 1) / rows
    across = (torch.arange(cols) + 1) / cols
    return [(int((down - y).abs().argmin()), int((across - x).abs().argmin())) for y, x in PLACES]


def peak(attention: Tensor) -> tuple[int, int]:
    return divmod(int(attention.argmax()), attention.shape[1])


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    scale = 96 / max(size)
    return math.ceil(int(size[1] * scale) / 16), math.ceil(int(size[0] * scale) / 16)


def check(caption: Caption, size: tuple[int, int], *, shift: int = 0) -> None:
    """Everything that the contract promises of a caption of the planted captioner."""
    rows, cols = grid_of(size)
    expected = cells(rows, cols)
    assert tuple(caption.tokens) == SENTENCE
    assert caption.attention.shape == (len(SENTENCE), rows, cols)
    torch.testing.assert_close(caption.attention.sum((1, 2)), torch.ones(len(SENTENCE)))
    for index, attention in enumerate(caption.attention):
        assert peak(attention) == expected[index + shift], caption.tokens[index]
    assert tuple(word.text for word in caption.words) == WORDS
    assert tuple(word.tokens for word in caption.words) == GROUPS
    for word in caption.words:
        own = caption.attention[list(word.tokens)].mean(0)
        torch.testing.assert_close(word.attention, own)
        log_prob = sum(caption.log_probs[token] for token in word.tokens)
        assert word.log_prob == pytest.approx(log_prob)
    assert caption.end_attention is not None
    if shift == 0:
        assert peak(caption.end_attention) == expected[-1]


@pytest.mark.parametrize("name", ASPECTS)
def test_every_words_peak_is_in_its_cell(planted: Captioner, name: str) -> None:
    size = ASPECTS[name]
    caption = planted.caption([Image.new("RGB", size)])[0]
    assert caption.text == "a umbrella on blue."
    check(caption, size)


def test_every_words_peak_is_in_its_cell_in_a_batch(planted: Captioner) -> None:
    """Three aspects at once: the grids are padded, the maps are not."""
    pictures = [Image.new("RGB", size) for size in ASPECTS.values()]
    for caption, size in zip(planted.caption(pictures), ASPECTS.values(), strict=True):
        check(caption, size)


def test_reads_gives_each_word_the_next_steps_map(planted: Captioner) -> None:
    size = ASPECTS["4:3"]
    caption = planted.caption([Image.new("RGB", size)], align="reads")[0]
    check(caption, size, shift=1)
    with pytest.raises(AssertionError):
        check(caption, size)


def wrong(caption: Caption, how: str) -> Caption:
    """The same caption as other people's code would give it."""
    maps, end = caption.attention, caption.end_attention
    assert end is not None
    if how == "one step late":
        maps = torch.cat([maps[1:], end[None]])
    elif how == "first word dropped":
        maps = torch.cat([maps[:1], maps[:-1]])
    elif how == "rows and columns swapped":
        maps = maps.transpose(1, 2).reshape(maps.shape)
    elif how == "a square grid":
        side = math.isqrt(maps[0].numel())
        maps = maps.flatten(1)[:, : side * side].unflatten(1, (side, side))
    elif how == "padding counted":
        maps = torch.nn.functional.pad(maps, (0, 1)) / 1.25
    elif how == "split on spaces":
        words = [
            dataclasses.replace(word, tokens=(index,)) for index, word in enumerate(caption.words)
        ]
        return dataclasses.replace(caption, words=words)
    elif how == "the end's map for the last word":
        maps = torch.cat([maps[:-1], end[None]])
    return dataclasses.replace(caption, attention=maps)


@pytest.mark.parametrize("name", ["4:3", "9:16"])
@pytest.mark.parametrize(
    "how",
    [
        "one step late",
        "first word dropped",
        "rows and columns swapped",
        "a square grid",
        "padding counted",
        "split on spaces",
        "the end's map for the last word",
    ],
)
def test_the_check_finds_the_usual_mistakes(planted: Captioner, name: str, how: str) -> None:
    caption = planted.caption([Image.new("RGB", ASPECTS[name])])[0]
    with pytest.raises((AssertionError, RuntimeError)):
        check(wrong(caption, how), ASPECTS[name])


def test_a_caption_that_is_cut_has_no_end(planted: Captioner) -> None:
    caption = planted.caption([Image.new("RGB", (96, 96))], max_length=5)[0]
    assert caption.tokens == list(SENTENCE[:4]) and caption.attention.shape[0] == 4
    assert caption.end_log_prob is None and caption.end_attention is None
    reading = planted.caption([Image.new("RGB", (96, 96))], max_length=5, align="reads")[0]
    assert peak(reading.attention[3]) == cells(6, 6)[4]


def test_the_box_is_where_the_cells_see(planted: Captioner) -> None:
    """640x480 becomes 96x72; cell 0 is centred on pixel 0, and 6 x 5 cells of 16 lie over it."""
    caption = planted.caption([Image.new("RGB", (640, 480))])[0]
    scale = 640 / 96
    expected = (-7.5 * scale, -7.5 * scale, (6 * 16 - 7.5) * scale, (5 * 16 - 7.5) * scale)
    assert caption.box == pytest.approx(expected)
    own = make_captioner()
    box = own.caption([Image.new("RGB", (60, 40))])[0].box
    assert box == pytest.approx(own.preprocess.crop_box(60, 40))


def test_blocks_and_heads(planted: Captioner) -> None:
    picture = Image.new("RGB", (96, 96))
    mean = planted.caption([picture])[0].attention
    heads = [planted.caption([picture], head=head)[0].attention for head in (0, 1)]
    torch.testing.assert_close((heads[0] + heads[1]) / 2, mean)
    assert not torch.allclose(heads[0], heads[1])
    first = planted.caption([picture], block=0)[0].attention
    torch.testing.assert_close(planted.caption([picture], block=-2)[0].attention, first)
    for options in ({"block": 2}, {"block": -3}, {"head": 2}, {"head": -1}):
        with pytest.raises(IndexError, match="this captioner has 2"):
            planted.caption([picture], **options)
    with pytest.raises(ValueError, match="align is 'writes': choose from predicts, reads"):
        planted.caption([picture], align="writes")


def test_relative_attention_is_one_on_average() -> None:
    maps = torch.rand(5, 3, 4)
    maps = maps / maps.sum((1, 2), keepdim=True)
    relative = relative_attention(maps)
    torch.testing.assert_close(relative.mean(0), torch.ones(3, 4))
    maps[:, 0, 0] = 0.0  # a cell that nobody looks at
    assert torch.isfinite(relative_attention(maps)).all()


def test_maps_of_sampled_sentences(planted: Captioner) -> None:
    caption = planted.caption([Image.new("RGB", ASPECTS["1:1"])], sample=0, temperature=0.1)[0]
    check(caption, ASPECTS["1:1"])
