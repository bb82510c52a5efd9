"""The captioner against what CATR's own code gave, and against itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from minivit import BadImageError, CheckpointError, load_model, save_model
from minivit.captioner import Captioner, Memory
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.generation import Hypothesis, generate
from minivit.generation import sample as sample_sentences
from minivit.tokenizer import WordLevel
from minivit.vit import VisionTransformer
from minivit.word_maps import BestMap
from tests.arithmetic import assert_rounded_alike
from tests.catr import catr, references
from tests.references.catr_inputs import (
    HEAD_STEPS,
    PICTURES,
    POSITIONS,
    ROWS,
    SELF_LAYER,
    STEPS,
    caption_row,
    picture,
    sample,
    statistics,
)
from tests.references.seeded import foreign_weights, seeded

WORDS = ("a", "blue", "circle", "left", "of", "red", "square", "the")


def small_config(**options: object) -> CaptionerConfig:
    vit = ViTConfig.from_name("debug_patch8_32", image_size=(32, 48), num_classes=0)
    values = {
        "backbone": vit,
        "vocabulary_size": len(WORDS) + 4,
        "max_length": 12,
        "dim": 32,
        "num_heads": 4,
        "hidden_dim": 48,
        "encoder_depth": 2,
        "decoder_depth": 3,
        "head_dim": 24,
    }
    return CaptionerConfig(**(values | options))


def make_captioner(**options: object) -> Captioner:
    """A small one of seeded weights, in eval mode."""
    captioner = Captioner(small_config(**options), WordLevel(WORDS)).eval()
    shapes = {name: tensor.shape for name, tensor in captioner.state_dict().items()}
    captioner.load_state_dict(foreign_weights(shapes, 3))
    return captioner


def close(found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_what_a_captioner_is() -> None:
    """Words so far look at the cells of a picture, and say which word may come next."""
    captioner = make_captioner()
    images = torch.randn(1, 3, 32, 48)  # patches of 8 pixels: 4 rows of 6
    memory = captioner.encode(images)
    assert memory.grid == (4, 6) and memory.tokens.shape == (1, 24, 32)
    words = torch.tensor([[captioner.tokenizer.start_id, *captioner.tokenizer.encode("a red")]])
    logits, to_words, to_cells = captioner.decode(words, memory, need_weights=True)
    assert logits.shape == (1, 3, 12)  # after each of three words, how likely are all twelve
    assert to_words[-1].shape == (1, 4, 3, 3) and to_cells[-1].shape == (1, 4, 3, 24)
    close(captioner(images, words), logits, atol=1e-5)
    photo = Image.new("RGB", (48, 32))
    [caption] = captioner.caption([photo], max_length=3)  # the start token and two words
    assert len(caption.tokens) == 2 and caption.attention.shape == (2, 4, 6)


# ---- CATR -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_every_stage_is_catrs(name: str) -> None:
    """Picture, features, positions, memory, logits; each to 1e-4 of its scale."""
    expected, _ = references()
    captioner = catr()
    image = captioner.preprocess(picture(name))
    close(sample(image), expected[f"{name}.image"], atol=0)

    def agrees(found: Tensor, key: str) -> None:
        stored = expected[f"{name}.{key}"]
        close(found, stored, atol=1e-4 * float(stored.abs().max()))

    agrees(sample(captioner.backbone(image[None])[0]), "layer4")
    memory = captioner.encode(image[None])
    agrees(sample(memory.position[0].T), "position")
    agrees(sample(memory.tokens[0]), "memory")
    tokens, padding = caption_row(name)
    logits, _, _ = captioner.decode(tokens, memory, token_mask=~padding)
    chosen = logits[0, list(POSITIONS)]
    agrees(statistics(chosen), "statistics")
    agrees(torch.stack([sample(row) for row in chosen]), "logits")
    # Without the mask, what stands before the padding is the same: no word sees a later one.
    short, _, _ = captioner.decode(tokens[:, : len(ROWS[name])], memory)
    words = [place for place in POSITIONS if place < len(ROWS[name])]
    close(short[0, words], logits[0, words], atol=1e-4)


@pytest.fixture(scope="module")
def exact_catr() -> Iterator[Captioner]:
    """The same network in float64, which says how much of a difference is rounding."""
    yield copy.deepcopy(catr()).double()


@pytest.mark.parametrize("name", PICTURES)
def test_greedy_tokens_and_maps_are_catrs(name: str, exact_catr: Captioner) -> None:
    """Token for token what its predict.py writes, which runs the whole network for each word."""
    expected, _ = references()
    captioner = catr()
    image = picture(name)
    caption = captioner.caption([image], max_length=STEPS + 1)[0]
    assert caption.token_ids == expected[f"{name}.tokens"][1:].tolist()
    tokens = torch.tensor([[captioner.tokenizer.start_id, *caption.token_ids[:-1]]])

    @torch.inference_mode()
    def run(network: Captioner) -> dict[str, Tensor]:
        memory = network.encode_photos([image])
        logits, to_words, to_cells = network.decode(tokens, memory, need_weights=True)
        cells = to_cells[-1][0]  # (H, T, M)
        return {
            "best": logits[0].amax(dim=1),
            "cross_attention": cells.mean(0),
            "heads": cells[:, list(HEAD_STEPS)],
            "self_attention": to_words[SELF_LAYER][0],
        }

    steps = [expected[f"{name}.cross_attention.{step}"] for step in HEAD_STEPS]
    stored = {"heads": torch.stack(steps, dim=1)}
    found, exact = run(captioner), run(exact_catr)
    for key, own in found.items():
        theirs = stored.get(key, expected.get(f"{name}.{key}"))
        assert_rounded_alike(own, theirs, exact[key], atol=1e-4 if key == "best" else 2e-5)
    cells = caption.attention.flatten(1)
    stored_cells = expected[f"{name}.cross_attention"]
    assert_rounded_alike(cells, stored_cells, exact["cross_attention"], atol=2e-5)


@torch.no_grad()
def test_padded_pictures_are_catrs(exact_catr: Captioner) -> None:
    """Its training path: two pictures in a batch of 299 x 299, with masks."""
    expected, _ = references()
    captioner = catr()
    images, mask = torch.zeros(2, 3, 299, 299), torch.zeros(2, 299, 299, dtype=torch.bool)
    for index, name in enumerate(PICTURES):
        image = captioner.preprocess(picture(name))
        images[index, :, : image.shape[1], : image.shape[2]] = image
        mask[index, : image.shape[1], : image.shape[2]] = True
    rows = [caption_row(name, training=True)[0] for name in PICTURES]
    tokens = torch.cat(rows)
    masks = {"token_mask": tokens[:, :-1] != 0, "need_weights": True}
    memory = captioner.encode(images, mask)
    logits, _, to_cells = captioner.decode(tokens[:, :-1], memory, **masks)
    exact = exact_catr.decode(tokens[:, :-1], exact_catr.encode(images.double(), mask), **masks)
    for index, name in enumerate(PICTURES):
        key = f"padded.{name}"
        assert memory.mask is not None
        assert torch.equal(~memory.mask[index].view(19, 19), expected[f"{key}.ignored"].bool())
        close(sample(memory.position[index].T), expected[f"{key}.position"], atol=1e-6)
        real = memory.tokens[index] * memory.mask[index][:, None]
        close(sample(real), expected[f"{key}.memory"], atol=5e-4)
        chosen = logits[index, list(POSITIONS)]
        close(statistics(chosen), expected[f"{key}.statistics"], atol=5e-4)
        own, precise = (
            weights[-1][index].mean(0)[list(POSITIONS)] for weights in (to_cells, exact[2])
        )
        assert_rounded_alike(own, expected[f"{key}.cross_attention"], precise, atol=2e-5)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    close(loss, expected["padded.loss"], atol=1e-3)


# ---- against itself -----------------------------------------------------------------------------


@torch.no_grad()
def test_shapes_and_rows() -> None:
    captioner = make_captioner()
    images, tokens = torch.randn(2, 3, 32, 48), torch.randint(4, 12, (2, 7))
    logits, attention = captioner(images, tokens, return_attention=True)
    assert logits.shape == (2, 7, 12)
    close(captioner(images, tokens), logits, atol=1e-5)
    backbone, encoder = attention.encoder[:2], attention.encoder[2:]
    assert [tuple(w.shape) for w in backbone] == [(2, 2, 25, 25)] * 2
    assert [tuple(w.shape) for w in encoder] == [(2, 4, 24, 24)] * 2
    assert [tuple(w.shape) for w in attention.decoder] == [(2, 4, 7, 7)] * 3
    assert [tuple(w.shape) for w in attention.cross] == [(2, 4, 7, 24)] * 3
    for weights in (*attention.encoder, *attention.decoder, *attention.cross):
        close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    assert attention.decoder[0].triu(1).abs().max() == 0  # no word sees a later one


@torch.no_grad()
def test_words_do_not_see_later_ones() -> None:
    captioner = make_captioner()
    images, tokens = torch.randn(1, 3, 32, 48), torch.randint(4, 12, (1, 8))
    changed = tokens.clone()
    changed[0, 5:] = 4
    before = captioner(images, tokens)[:, :5]
    close(captioner(images, changed)[:, :5], before, atol=1e-5)
    close(captioner(images, tokens[:, :5]), before, atol=1e-5)


@torch.no_grad()
def test_the_cache_changes_nothing() -> None:
    captioner = make_captioner()
    images, tokens = torch.randn(2, 3, 32, 48), torch.randint(4, 12, (2, 9))
    memory = captioner.encode(images)
    whole, _, cross = captioner.decode(tokens, memory, need_weights=True)
    caches = captioner.new_cache(2, 2, memory)
    for step in range(9):
        logits, _, new = captioner.decode(
            tokens[:, step : step + 1], memory, caches=caches, need_weights=True
        )
        close(logits[:, 0], whole[:, step], atol=1e-5)
        close(new[-1][:, :, 0], cross[-1][:, :, step], atol=1e-6)


@torch.no_grad()
def test_beams_share_a_memory_without_a_copy() -> None:
    """Three sentences a picture give what three copies of the picture give."""
    captioner = make_captioner()
    images, tokens = torch.randn(2, 3, 32, 48), torch.randint(4, 12, (6, 4))
    memory = captioner.encode(images)
    copies = Memory(memory.tokens.repeat_interleave(3, 0), memory.position, None, memory.grid)
    expected, _, cross = captioner.decode(tokens, copies, need_weights=True)
    caches = captioner.new_cache(6, 2, memory)
    assert caches[0].cross_attention.keys.shape[0] == 2
    found, _, shared = captioner.decode(tokens, memory, caches=caches, need_weights=True)
    close(found, expected, atol=1e-5)
    close(shared[-1], cross[-1], atol=1e-6)


@torch.no_grad()
def test_padding_of_a_resnets_picture_is_not_looked_at() -> None:
    captioner = make_captioner(backbone=ResNetConfig(depth=50, dilate_last_stage=True))
    images, mask = torch.zeros(1, 3, 64, 80), torch.zeros(1, 64, 80, dtype=torch.bool)
    images[:, :, :64, :48] = torch.randn(1, 3, 64, 48)
    mask[:, :64, :48] = True
    tokens = torch.randint(4, 12, (1, 5))
    logits, attention = captioner(images, tokens, mask, return_attention=True)
    seen = attention.cross[-1].view(1, 4, 5, 4, 5)
    assert seen[..., 3:].abs().max() == 0 and seen[..., :3].min() > 0
    memory = captioner.encode(images, mask)
    assert memory.mask is not None and int(memory.mask.sum()) == 12
    assert torch.isfinite(logits).all()


def test_a_vit_takes_no_mask() -> None:
    with pytest.raises(ValueError, match="a ViT sees padding as picture"):
        make_captioner().encode(torch.zeros(1, 3, 32, 48), torch.ones(1, 32, 48).bool())


def test_too_many_words_are_refused() -> None:
    captioner = make_captioner()
    with pytest.raises(ValueError, match="13 tokens, this captioner has 12 positions"):
        captioner(torch.zeros(1, 3, 32, 48), torch.zeros(1, 13, dtype=torch.long))


def test_a_new_captioner_finds_all_words_about_as_likely() -> None:
    torch.manual_seed(0)
    captioner = Captioner(small_config(), WordLevel(WORDS)).eval()
    logits = captioner(torch.randn(2, 3, 32, 48), torch.randint(4, 12, (2, 7)))
    assert logits.softmax(-1).max() < 0.2


def test_every_parameter_gets_a_gradient() -> None:
    captioner = make_captioner()
    captioner(torch.randn(2, 3, 32, 48), torch.randint(4, 12, (2, 7))).square().sum().backward()
    without = [name for name, p in captioner.named_parameters() if p.grad is None]
    assert without == []


# ---- sentences ----------------------------------------------------------------------------------


def small_picture(index: int) -> Image.Image:
    pixels = (seeded(f"picture {index}", (32, 48, 3), 0) * 60 + 128).clamp(0, 255).byte()
    return Image.fromarray(pixels.numpy())


def log_probabilities(captioner: Captioner, memory: Memory, sentence: Hypothesis) -> list[float]:
    """Log-probability of each token, by running all words through the decoder at once."""
    tokenizer = captioner.tokenizer
    words = [tokenizer.start_id, *sentence.token_ids, *[tokenizer.end_id] * sentence.ended]
    logits, _, _ = captioner.decode(torch.tensor([words[:-1]]), memory)
    return logits[0].log_softmax(-1).gather(1, torch.tensor(words[1:])[:, None])[:, 0].tolist()


@torch.inference_mode()
def test_greedy_takes_the_likeliest_word_each_time() -> None:
    """Against the plain way: all words again at every step, without a cache."""
    captioner = make_captioner()
    memory = captioner.encode_photos([small_picture(index) for index in range(6)])
    sentences = [best for best, *_ in generate(captioner.next_words(memory))]
    for index, sentence in enumerate(sentences):
        one = captioner.encode_photos([small_picture(index)])
        ids: list[int] = []
        while len(ids) < captioner.config.max_length - 1:
            words = torch.tensor([[captioner.tokenizer.start_id, *ids]])
            token = int(captioner.decode(words, one)[0][0, -1].argmax())
            if token == captioner.tokenizer.end_id:
                break
            ids.append(token)
        assert sentence.token_ids == ids
        assert sentence.ended == (len(ids) < captioner.config.max_length - 1)
        expected = log_probabilities(captioner, one, sentence)
        assert sentence.log_probs == pytest.approx(expected, abs=1e-5)
        assert sentence.score == pytest.approx(sum(expected) / len(expected), abs=1e-5)


@torch.inference_mode()
def test_beams_and_samples_have_the_log_probabilities_of_their_words() -> None:
    """The caches follow the beams: all words at once, without a cache, give the same numbers."""
    captioner = make_captioner()
    pictures = [small_picture(index) for index in range(3)]
    memory = captioner.encode_photos(pictures)
    beams = generate(captioner.next_words(memory), beam_size=4)
    drawn = sample_sentences(captioner.next_words(memory), seed=5)
    for photo, found, chance in zip(pictures, beams, drawn, strict=True):
        one = captioner.encode_photos([photo])
        assert len({(tuple(sentence.token_ids), sentence.ended) for sentence in found}) == 4
        for sentence in (*found, chance):
            expected = log_probabilities(captioner, one, sentence)
            assert sentence.log_probs == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_beams_of_a_batch_are_those_of_each_picture() -> None:
    captioner = make_captioner()
    pictures = [small_picture(index) for index in range(4)]
    together = generate(captioner.next_words(captioner.encode_photos(pictures)), beam_size=3)
    for photo, beams in zip(pictures, together, strict=True):
        memory = captioner.encode_photos([photo])
        [alone] = generate(captioner.next_words(memory), beam_size=3)
        assert [each.token_ids for each in beams] == [each.token_ids for each in alone]
        assert [each.score for each in beams] == pytest.approx([each.score for each in alone])


def test_nothing_leaks_from_one_picture_to_the_next() -> None:
    captioner = make_captioner()
    pictures = [small_picture(index) for index in range(3)]
    first = captioner.caption(pictures[:1])[0]
    captioner.caption(pictures[1:])
    again = captioner.caption(pictures[:1])[0]
    together = captioner.caption(pictures)[0]
    for other in (again, together):
        assert other.token_ids == first.token_ids
        close(other.attention, first.attention, atol=1e-6)


def test_one_picture_and_files_are_taken_too(tmp_path: Path) -> None:
    captioner, picture = make_captioner(), small_picture(0)
    picture.save(tmp_path / "photo.png")
    (expected,) = captioner.caption([picture])
    for given in (picture, tmp_path / "photo.png", str(tmp_path / "photo.png")):
        for pictures in (given, [given]):
            (caption,) = captioner.caption(pictures)
            assert caption.token_ids == expected.token_ids
            assert len(captioner.encode_photos(pictures).tokens) == 1
    with pytest.raises(BadImageError, match=r"none\.png"):
        captioner.caption(str(tmp_path / "none.png"))


def test_a_caption_is_drawn_by_chance_with_a_seed() -> None:
    captioner = make_captioner()
    pictures = [small_picture(0)] * 20

    def drawn(**options: float) -> list[list[int]]:
        return [caption.token_ids for caption in captioner.caption(pictures, **options)]

    assert drawn(sample=1) == drawn(sample=1) != drawn(sample=2)
    assert len({tuple(ids) for ids in drawn(sample=1)}) > 10
    for greedy in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert drawn(sample=1, **greedy) == drawn()
    assert max(map(len, drawn(sample=1, max_length=4))) == 3
    caption = captioner.caption(pictures[:1], sample=1)[0]
    assert caption.attention.shape == (len(caption.tokens), 4, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0, expected 1 to 6"),
        ({"beam_size": 7}, "beam_size is 7, expected 1 to 6"),
        ({"max_length": 1}, "max_length is 1: this captioner writes 2 to 12 tokens"),
        ({"max_length": 13}, "max_length is 13"),
        ({"sample": 3, "beam_size": 2}, "sample is 3 and beam_size is 2: .* leave one"),
        ({"sample": 3, "max_length": 13}, "max_length is 13"),
        ({"sample": 3, "temperature": 0.0}, "temperature 0.0, .* expected above 0"),
        ({"temperature": 0.5}, "temperature 0.5, .* give a seed as sample"),
        ({"top_k": 3}, "top_k 3, .* give a seed as sample"),
        ({"top_p": 0.5}, "top_p 0.5: .* give a seed as sample"),
    ],
)
def test_impossible_wishes_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_captioner().caption([small_picture(0)], **options)


def test_the_grids_without_padding_are_known() -> None:
    """Photos of 3:2 and 2:3 become 299 x 199 and 199 x 299 pixels; a cell has 16 pixels a side."""
    captioner = make_captioner(backbone=ResNetConfig(depth=50, dilate_last_stage=True))
    photos = [Image.new("RGB", (60, 40)), Image.new("RGB", (40, 60))]
    memory = captioner.encode_photos(photos)
    assert memory.grid == (19, 19) and memory.own_grids() == [(13, 19), (19, 13)]
    alone = captioner.encode_photos(photos[:1])
    assert alone.mask is None and alone.own_grids() == [alone.grid] == [(13, 19)]


def test_old_names_work_and_tell_the_new_ones() -> None:
    captioner = make_captioner()
    photo = small_picture(0)
    with pytest.warns(DeprecationWarning, match="look_at is called encode_photos now") as caught:
        memory = captioner.look_at([photo])
    assert caught[0].filename == __file__  # the caller is named, not the library
    assert torch.equal(memory.tokens, captioner.encode_photos([photo]).tokens)
    with pytest.warns(DeprecationWarning, match="layer is called block now") as caught:
        first = captioner.caption([photo], layer=0)[0]
    assert caught[0].filename == __file__
    assert torch.equal(first.attention, captioner.caption([photo], block=0)[0].attention)
    assert not torch.equal(first.attention, captioner.caption([photo])[0].attention)


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["vit", "resnet"])
def test_a_captioner_comes_back_from_its_file(backbone: str, tmp_path) -> None:
    options = {} if backbone == "vit" else {"backbone": ResNetConfig(depth=50)}
    captioner = make_captioner(**options)
    save_model(captioner, tmp_path / "c.safetensors")
    loaded = load_model(tmp_path / "c.safetensors")
    assert isinstance(loaded, Captioner) and not loaded.training
    assert loaded.config == captioner.config and loaded.preprocess == captioner.preprocess
    assert loaded.tokenizer.vocabulary == captioner.tokenizer.vocabulary
    for name, tensor in captioner.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_file_of_another_kind_is_named(tmp_path) -> None:
    save_model(make_captioner(), tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="holds a Captioner, a VisionTransformer is needed"):
        load_model(tmp_path / "c.safetensors", expected=VisionTransformer)


def test_a_vocabulary_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the vocabulary has 12 words, the weights are for 13"):
        Captioner(small_config(vocabulary_size=13), WordLevel(WORDS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 30}, "dim is 30, expected a multiple of 4 and of num_heads, 4"),
        ({"decoder_depth": 0}, "decoder_depth is 0"),
        ({"max_length": 1}, "max_length is 1, expected a whole number, at least 2"),
        ({"activation": "swish"}, "activation is 'swish': choose from gelu"),
    ],
)
def test_impossible_configs_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


def test_a_config_comes_back_from_plain_values() -> None:
    for config in (small_config(), small_config(backbone=ResNetConfig(depth=101))):
        assert CaptionerConfig.from_dict(config.to_dict()) == config
    values = small_config().to_dict()
    with pytest.raises(ValueError, match="unknown captioner config field depth; valid: activation"):
        CaptionerConfig.from_dict(values | {"depth": 3})
    values["backbone"] = {"depth": 34}
    with pytest.raises(ValueError, match=r"depth of a ResNet is 34: choose from \[50, 101\]"):
        CaptionerConfig.from_dict(values)
    assert dataclasses.replace(small_config(), dim=64).dim == 64


# ---- a sentence of one's own ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"align": "reads"}, {"block": 0, "head": 2}])
def test_reading_a_caption_gives_what_writing_it_gave(options: dict[str, Any]) -> None:
    captioner = make_captioner()
    with torch.no_grad():
        for each in (captioner.tokenizer.pad_id, captioner.tokenizer.unknown_id, 1):
            captioner.head[2].bias[each] = -99  # words that a text can have
        captioner.head[2].bias[captioner.tokenizer.end_id] += 0.5
    pictures = [small_picture(0), small_picture(1)]
    written = captioner.caption(pictures, **options)
    for index, photo in enumerate(pictures):
        (read,) = captioner.caption_text(photo, written[index].text, **options)
        count = len(read.tokens)
        assert read.tokens == written[index].tokens[:count] and count
        close(torch.tensor(read.log_probs), torch.tensor(written[index].log_probs[:count]), 1e-4)
        close(read.attention, written[index].attention[:count], 1e-5)
        assert read.box == written[index].box and len(read.words) == count


def test_a_text_has_the_probabilities_that_teacher_forcing_gives() -> None:
    captioner, text = make_captioner(), "the red circle left of a blue square"
    pictures = [small_picture(0), small_picture(1)]
    first, second = captioner.caption_text(pictures, text)
    assert first.text == second.text == text and not torch.equal(first.attention, second.attention)
    tokenizer = captioner.tokenizer
    ids = [tokenizer.start_id, *tokenizer.encode(text)]
    images = torch.stack([captioner.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        logits = captioner(images, torch.tensor([ids, ids])).log_softmax(dim=-1)
    for row, caption in zip(logits, (first, second), strict=True):
        expected = [float(row[i, ids[i + 1]]) for i in range(len(ids) - 1)]
        assert caption.log_probs == pytest.approx(expected, abs=1e-4)
        assert caption.end_log_prob == pytest.approx(float(row[-1, tokenizer.end_id]), abs=1e-4)
        assert caption.end_attention is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red umbrella", "no word of this captioner: umbrella"),
        ("  ", "has no words"),
        ("a " * 12, "12 word-pieces, this captioner takes 11"),
    ],
)
def test_a_text_that_the_captioner_cannot_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_captioner().caption_text([small_picture(0)], text)


def test_the_maps_that_point_best_are_kept_with_the_weights(tmp_path: Path) -> None:
    captioner = make_captioner()
    assert captioner.best_map() is None
    best = (
        BestMap("all", "predicts", 1, None, 0.75, 0.1),
        BestMap("shape", "predicts", 0, 3, 0.5, 0.1),
        BestMap("all", "reads", 2, 1, 0.25, 0.1),
    )
    captioner.best_maps = best
    save_model(captioner, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", expected=Captioner)
    assert loaded.best_maps == best
    assert (loaded.best_map(), loaded.best_map("reads")) == (best[0], best[2])
    assert loaded.best_map(words="shape") == best[1]
    assert loaded.best_map("reads", "shape") is None
    save_model(make_captioner(), tmp_path / "old.safetensors")
    assert load_model(tmp_path / "old.safetensors", expected=Captioner).best_maps == ()
