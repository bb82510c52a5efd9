"""The captioner against what CATR's own code gave, and against itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from minivit import CheckpointError, load_model, save_model
from minivit.captioner import Captioner, Memory
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.tokenizer import WordLevel
from minivit.vit import VisionTransformer
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
from tests.references.seeded import foreign_weights

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


@pytest.mark.parametrize("name", PICTURES)
def test_greedy_tokens_and_maps_are_catrs(name: str) -> None:
    """Token for token what its predict.py writes, which runs the whole network for each word."""
    expected, _ = references()
    captioner = catr()
    image = picture(name)
    caption = captioner.caption([image], max_length=STEPS + 1)[0]
    assert caption.token_ids == expected[f"{name}.tokens"][1:].tolist()
    close(caption.attention.flatten(1), expected[f"{name}.cross_attention"], atol=1e-5)
    best = expected[f"{name}.best"]
    tokens = torch.tensor([[captioner.tokenizer.start_id, *caption.token_ids[:-1]]])
    with torch.inference_mode():
        memory = captioner.look_at([image])
        logits, to_words, to_cells = captioner.decode(tokens, memory, need_weights=True)
    close(logits[0].amax(dim=1), best, atol=1e-4)
    for step in HEAD_STEPS:
        close(to_cells[-1][0, :, step], expected[f"{name}.cross_attention.{step}"], atol=1e-5)
    close(to_words[SELF_LAYER][0], expected[f"{name}.self_attention"], atol=2e-5)


@torch.no_grad()
def test_padded_pictures_are_catrs() -> None:
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
    memory = captioner.encode(images, mask)
    logits, _, to_cells = captioner.decode(
        tokens[:, :-1], memory, token_mask=tokens[:, :-1] != 0, need_weights=True
    )
    for index, name in enumerate(PICTURES):
        key = f"padded.{name}"
        assert memory.mask is not None
        assert torch.equal(~memory.mask[index].view(19, 19), expected[f"{key}.ignored"].bool())
        close(sample(memory.position[index].T), expected[f"{key}.position"], atol=1e-6)
        real = memory.tokens[index] * memory.mask[index][:, None]
        close(sample(real), expected[f"{key}.memory"], atol=5e-4)
        chosen = logits[index, list(POSITIONS)]
        close(statistics(chosen), expected[f"{key}.statistics"], atol=5e-4)
        maps = to_cells[-1][index].mean(0)[list(POSITIONS)]
        close(maps, expected[f"{key}.cross_attention"], atol=1e-5)
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
