"""Sizes as published, configs as plain values, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any, get_args

import pytest
import torch

from minivit.blocks import ACTIVATIONS
from minivit.config import (
    CATR,
    SIZES,
    Activation,
    BlockConfig,
    CaptionerConfig,
    ViTConfig,
)
from minivit.vit import VisionTransformer


def count_parameters(config: ViTConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VisionTransformer(config).parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny_patch16_224", 5_717_416),
        ("small_patch16_224", 22_050_664),
        ("base_patch16_224", 86_567_656),
        ("base_patch32_224", 88_224_232),
        ("large_patch16_224", 304_326_632),
    ],
)
def test_published_sizes_have_their_published_number_of_parameters(
    name: str, expected: int
) -> None:
    assert count_parameters(ViTConfig.from_name(name)) == expected
    assert ViTConfig.from_name(f"vit_{name}") == ViTConfig.from_name(name)


def test_larger_pictures_cost_position_embeddings_only() -> None:
    small = count_parameters(ViTConfig.from_name("vit_small_patch16_224"))
    large = count_parameters(ViTConfig.from_name("vit_small_patch16_384"))
    assert large - small == (24 * 24 - 14 * 14) * 384


def test_a_name_says_the_sizes() -> None:
    config = ViTConfig.from_name("vit_small_patch16_384")
    assert (config.dim, config.depth, config.num_heads, config.hidden_dim) == (384, 12, 6, 1536)
    assert config.image_size == (384, 384) and config.patch_size == (16, 16)
    assert config.num_classes == 1000 and config.layer_norm_eps == 1e-6
    assert config.activation == "gelu" and config.pooling == "cls"
    assert ViTConfig.from_name("debug_patch8_32").num_classes == 10


def test_any_field_of_a_named_size_can_be_set() -> None:
    config = ViTConfig.from_name("debug_patch8_32", image_size=[32, 48], num_classes=3)
    assert config.image_size == (32, 48) and config.num_classes == 3
    assert config.grid_size == (4, 6)


@pytest.mark.parametrize("name", ["huge_patch14_224", "vit_small", "small_patch16", "", "resnet"])
def test_an_unknown_size_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError) as error:
        ViTConfig.from_name(name)
    for known in (repr(name), *SIZES):
        assert known in str(error.value)


def test_grid_and_prefix_tokens() -> None:
    config = ViTConfig.from_name("debug_patch8_32", image_size=(32, 48), patch_size=(8, 4))
    assert config.grid_size == (4, 12)  # rows, cols
    for options, expected in (
        ({}, 1),
        ({"distillation_token": True}, 2),
        ({"distillation_token": True, "num_register_tokens": 4}, 6),
        ({"class_token": False, "pooling": "mean", "num_register_tokens": 4}, 4),
        ({"class_token": False, "pooling": "mean"}, 0),
    ):
        assert ViTConfig.from_name("debug_patch8_32", **options).num_prefix_tokens == expected


def test_configs_survive_json() -> None:
    config = ViTConfig.from_name(
        "debug_patch8_32", image_size=(32, 48), layer_scale=0.1, num_register_tokens=2
    )
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(ViTConfig.from_dict(config.to_dict())) == hash(config)


def test_configs_are_frozen() -> None:
    config = ViTConfig.from_name("debug_patch8_32")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 64  # type: ignore[misc]


def test_an_unknown_field_lists_the_valid_ones() -> None:
    values = ViTConfig.from_name("debug_patch8_32").to_dict()
    with pytest.raises(
        ValueError, match=r"unknown ViT config field heads, width; valid: "
    ) as error:
        ViTConfig.from_dict(values | {"width": 3, "heads": 2})
    for field in dataclasses.fields(ViTConfig):
        assert field.name in str(error.value)
    with pytest.raises(ValueError, match="unknown ViT config field width"):
        ViTConfig.from_name("debug_patch8_32", width=3)


def test_a_missing_field_is_named() -> None:
    values = ViTConfig.from_name("debug_patch8_32").to_dict()
    del values["layer_norm_eps"]
    with pytest.raises(ValueError, match="layer_norm_eps"):
        ViTConfig.from_dict(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "swish"}, "activation is 'swish': choose from gelu, gelu_tanh"),
        ({"pooling": "max"}, "pooling is 'max': choose from cls, mean"),
        ({"pos_embed": "rope"}, "pos_embed is 'rope': choose from learned, sine"),
        ({"dim": 0}, "dim is 0, expected a whole number, at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"hidden_dim": -1}, "hidden_dim is -1"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"num_heads": 3}, "num_heads is 3, which does not divide dim 32"),
        ({"class_token": False}, "pooling is 'cls' but class_token is False"),
        ({"head_blocks": 2}, "head_blocks is 2: .*pooling 'cls' expected 1 to 1"),
        ({"head_blocks": 3, "pooling": "cls_and_mean"}, "head_blocks is 3: with depth 2"),
        ({"fc_norm": True, "pooling": "cls_and_mean"}, "goes neither with fc_norm"),
        (
            {"class_token": False, "pooling": "mean", "distillation_token": True},
            "distillation token",
        ),
        ({"image_size": 32}, "image_size is 32, expected"),
        ({"image_size": (32,)}, "image_size"),
        ({"image_size": (0, 32)}, "image_size"),
        ({"patch_size": (0, 8)}, "patch_size"),
        ({"patch_size": (8, -8)}, "patch_size"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_register_tokens": -1}, "num_register_tokens is -1"),
        ({"representation_dim": -1}, "representation_dim is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"drop_path": 1.5}, "drop_path is 1.5"),
    ],
)
def test_invalid_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTConfig.from_name("debug_patch8_32", **options)


def test_a_patch_of_no_pixels_in_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        ViTConfig.from_name("debug_patch0_32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0, expected a whole number, at least 1"),
        ({"dim": 32.0}, "dim is 32.0"),
        ({"num_heads": 5}, "num_heads is 5, which does not divide dim 32"),
        ({"activation": "swish"}, "activation is 'swish': choose from gelu"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"attention_dropout": -0.5}, "attention_dropout is -0.5"),
    ],
)
def test_a_block_checks_what_it_is_made_of(options: dict[str, Any], message: str) -> None:
    values = {"dim": 32, "num_heads": 4, "hidden_dim": 64, "activation": "gelu"}
    with pytest.raises(ValueError, match=message):
        BlockConfig(**(values | {"layer_norm_eps": 1e-6} | options))


def test_blocks_get_every_field_that_they_share_with_the_model() -> None:
    """A field of the blocks that the model has too is the model's, not the default."""
    shared = {field.name for field in dataclasses.fields(BlockConfig)}
    vit = ViTConfig.from_name(
        "debug_patch8_32",
        activation="quick_gelu",
        qkv_bias=False,
        layer_scale=0.1,
        dropout=0.1,
        attention_dropout=0.2,
    )
    for config in (vit, CATR):
        block = config.block_config()
        names = shared & {field.name for field in dataclasses.fields(config)}
        assert {name: getattr(block, name) for name in names} == {
            name: getattr(config, name) for name in names
        }
    assert CATR.block_config().attention_dropout == CATR.dropout == 0.1
    assert CATR.block_config().norm_first and vit.block_config().norm_first


def test_every_activation_has_a_function() -> None:
    assert set(get_args(Activation)) == ACTIVATIONS.keys()


def test_names_of_before_are_read_and_taken() -> None:
    values = ViTConfig.from_name("debug_patch8_32", norm_pre=True).to_dict()
    old = {("norm_before" if name == "norm_pre" else name): value for name, value in values.items()}
    assert ViTConfig.from_dict(old) == ViTConfig.from_dict(values)
    config = ViTConfig.from_dict(old)
    with pytest.warns(DeprecationWarning, match="norm_before is called norm_pre now") as warned:
        assert config.norm_before  # type: ignore[attr-defined]
    assert warned[0].filename == __file__
    fields = dataclasses.asdict(config)
    del fields["norm_pre"]
    with pytest.warns(DeprecationWarning, match="norm_before is called norm_pre now") as warned:
        assert ViTConfig(**fields, norm_before=True) == config
    assert warned[0].filename == __file__


def test_configs_need_no_torch() -> None:
    """So that a command can answer --help at once."""
    code = "import sys, minivit.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "ViTConfig needs image_size, patch_size, dim, .*, layer_norm_eps too"),
        ({"num_classes": 5, "depth": 2}, "ViTConfig needs image_size, patch_size, dim, num_heads"),
        ({"img_size": 224}, "ViTConfig has no field img_size; valid: activation, .* image_size"),
    ],
)
def test_a_config_without_its_fields_names_the_short_way(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TypeError, match=problem) as caught:
        ViTConfig(**given)
    message = str(caught.value)
    assert "\n" not in message and all(size in message for size in SIZES)
    (example,) = re.findall(r"ViTConfig\.from_name\(.*?\)", message)
    config = eval(example, {"ViTConfig": ViTConfig})
    assert config == ViTConfig.from_name("small_patch16_224", num_classes=37)


def test_a_name_where_fields_are_expected_names_the_short_way() -> None:
    with pytest.raises(TypeError, match=r"by name only, and was given 'small'; ViTConfig\.from_n"):
        ViTConfig("small")  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"needs .*vocabulary_size.*replace\(minivit\.config\.CATR"):
        CaptionerConfig(dim=256)  # type: ignore[call-arg]
