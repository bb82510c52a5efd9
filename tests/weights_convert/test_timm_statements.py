"""What a timm file says of itself goes before published names; contradictions are named."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.references.seeded import seeded
from tests.weights_convert.test_conversion import make_model, saved, weights
from weights_convert import ConvertError, convert

TINY = "vit_tiny_patch16_224"


def folder(path: Path, tensors: dict[str, Tensor], **settings: Any) -> Path:
    """A hub folder with timm's config.json."""
    torch.save(tensors, path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps({"architecture": TINY} | settings))
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- pooling -------------------------------------------------------------------------------------


def test_the_place_of_the_last_norm_goes_before_a_published_name(tmp_path: Path) -> None:
    """fc_norm without norm is no class-token pooling, whatever the file is called."""
    model = make_model(name=TINY, depth=1, pooling="mean", fc_norm=True, num_classes=7)
    path = saved(tmp_path / f"{TINY}.pth", dict(model.state_dict()))
    images = seeded("images", (1, 3, 224, 224), 5)
    for options in ({}, {"name": TINY}, {"name": f"{TINY}.augreg_in21k"}):
        converted = convert(path, **options)
        with torch.no_grad():
            torch.testing.assert_close(converted.model(images), model(images), atol=1e-5, rtol=0)
        assert any("max and avgmax have the same tensors" in note for note in converted.notes)
    assert convert(path, pooling="cls").model.config.pooling == "cls"


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({"global_pool": "avg"}, {}, "mean"),
        ({"model_args": {"global_pool": "avg"}}, {}, "mean"),
        ({"global_pool": "token"}, {}, "cls"),
        ({"global_pool": "max"}, {}, "config.json: global_pool 'max' (the largest value"),
        ({"global_pool": "avgmax"}, {}, "global_pool 'avgmax' (half mean, half largest"),
        ({"global_pool": "map"}, {}, "global_pool 'map' (attention pooling)"),
        ({"global_pool": "median"}, {}, "global_pool 'median' (unknown)"),
        ({"model_args": {"global_pool": ""}}, {}, "a head on every token"),
        ({"global_pool": "avg"}, {"pooling": "cls"}, "--pooling cls contradicts config.json: mean"),
        (
            {"global_pool": "avg", "model_args": {"global_pool": "token"}},
            {},
            "states two poolings, 'avg' and in model_args 'token': say which with --pooling",
        ),
        (
            {"global_pool": "avg", "model_args": {"global_pool": "token"}},
            {"pooling": "mean"},
            "mean",
        ),
        ({"model_args": {"pool_include_prefix": True}}, {}, "a mean over all tokens"),
    ],
)
def test_the_pooling_that_is_stated(
    settings: dict[str, Any], options: dict[str, str], expected: str, tmp_path: Path
) -> None:
    path = folder(tmp_path, weights(name=TINY, depth=1, num_classes=7), **settings)
    if expected in ("cls", "mean"):
        assert convert(path, **options).model.config.pooling == expected
    else:
        assert expected in refusal(path, **options)


def test_a_statement_that_the_tensors_contradict(tmp_path: Path) -> None:
    tensors = weights(name=TINY, depth=1, pooling="mean", fc_norm=True)
    path = folder(tmp_path, tensors, global_pool="token")
    assert "states class-token pooling, the tensors have fc_norm" in refusal(path)
    folder(tmp_path, tensors, global_pool="token", model_args={"fc_norm": True})
    assert convert(path).model.config.pooling == "cls"  # timm keeps the norm of a reset classifier


def test_what_nothing_tells_is_said_with_the_option_that_decides(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights(num_classes=7))
    assert any("--pooling mean" in note for note in convert(path, num_heads=2).notes)
    assert convert(path, num_heads=2, pooling="mean").model.config.pooling == "mean"
    published = saved(tmp_path / f"{TINY}.pth", weights(name=TINY, depth=1))
    assert not any("--pooling" in note for note in convert(published).notes)


# ---- model_args ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_args", "field", "value"),
    [
        ({"num_heads": 6}, "num_heads", 6),
        ({}, "num_heads", 3),
        ({"act_layer": "relu"}, "activation", "relu"),
        ({"act_layer": "quick_gelu"}, "activation", "quick_gelu"),
        ({"norm_layer": "layernorm"}, "layer_norm_eps", 1e-6),
    ],
)
def test_model_args_go_before_the_table(
    model_args: dict[str, Any], field: str, value: Any, tmp_path: Path
) -> None:
    path = folder(tmp_path, weights(name=TINY, depth=1), model_args=model_args)
    assert getattr(convert(path).model.config, field) == value


@pytest.mark.parametrize(
    ("model_args", "options", "message"),
    [
        ({"act_layer": "silu"}, {}, "config.json: act_layer 'silu'; minivit runs gelu"),
        ({"norm_layer": "rmsnorm"}, {}, "norm_layer 'rmsnorm'; minivit runs 'layernorm'"),
        ({"attn_layer": "diff"}, {}, "attn_layer 'diff', which minivit does not run"),
        ({"img_size": [64, 64]}, {}, "img_size 64x64 does not fit the position embeddings"),
        ({"num_heads": 6}, {"num_heads": 3}, "--num-heads 3 contradicts config.json: 6"),
        ({"act_layer": "relu"}, {"activation": "gelu"}, "--activation gelu contradicts"),
        ({}, {"name": "vit_small_patch16_224"}, "contradicts config.json: vit_tiny_patch16_224"),
    ],
)
def test_what_is_stated_and_cannot_be(
    model_args: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = folder(tmp_path, weights(name=TINY, depth=1), model_args=model_args)
    assert message in refusal(path, **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_args": {"img_size": [64, 256]}},
        {"pretrained_cfg": {"input_size": [3, 64, 256]}},
        {"model_args": {"img_size": [64, 256]}, "pretrained_cfg": {"input_size": [3, 128, 128]}},
    ],
)
def test_a_size_that_is_not_square_is_read(settings: dict[str, Any], tmp_path: Path) -> None:
    """4 x 16 patches, which are as many as 8 x 8."""
    path = folder(tmp_path, weights(name=TINY, depth=1, image_size=(64, 256)), **settings)
    assert convert(path).model.grid_size == (4, 16)
    if "model_args" in settings:
        assert "contradicts config.json: 64x256" in refusal(path, image_size=(128, 128))


def test_a_square_that_nobody_states_is_an_assumption(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights())
    assert any("a square grid of 4 x 4 patches" in n for n in convert(path, num_heads=2).notes)
    assert not any(
        "square grid" in n for n in convert(path, num_heads=2, image_size=(32, 32)).notes
    )


def test_differences_and_unknown_arguments_are_noted(tmp_path: Path) -> None:
    path = folder(tmp_path, weights(name=TINY, depth=1), model_args={"depth": 12, "novelty": 1})
    notes = "\n".join(convert(path).notes)
    assert "config.json states depth 12, the tensors have 1" in notes
    assert "assumed: novelty in config.json changes nothing" in notes


def test_one_channel_takes_one_mean(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        weights(name=TINY, depth=1, in_channels=1),
        model_args={"in_chans": 1},
        pretrained_cfg={"mean": [0.4], "std": [0.2]},
    )
    model = convert(path).model
    assert model.config.in_channels == 1 and set(model.preprocess.mean) == {0.4}


def test_labels_of_config_json(tmp_path: Path) -> None:
    tensors = weights(name=TINY, depth=1, num_classes=2)
    path = folder(tmp_path, tensors, label_names=["n1", "n2"], label_descriptions={"n1": "a cat"})
    assert convert(path).model.labels == ("a cat", "n2")
    folder(tmp_path, tensors, label_names=["n1"])
    converted = convert(path)
    assert converted.model.labels is None
    assert any("left out the 1 labels" in note for note in converted.notes)


# ---- the settings of a training script, and names ------------------------------------------------


def test_timms_training_script_tells_by_its_args(tmp_path: Path) -> None:
    args = Namespace(
        model=TINY, gp="avg", mean=[0.1, 0.2, 0.3], std=None, crop_pct=0.8, img_size=224,
        model_kwargs={"num_heads": 6}, lr=0.1,
    )  # fmt: skip
    tensors = weights(name=TINY, depth=1, pooling="mean", fc_norm=True)
    path = saved(tmp_path / "model_best.pth.tar", {"state_dict": tensors, "args": args})  # type: ignore[dict-item]
    converted = convert(path)
    config, photos = converted.model.config, converted.model.preprocess
    assert (config.pooling, config.num_heads) == ("mean", 6)
    assert photos.mean == (0.1, 0.2, 0.3) and photos.crop_fraction == 0.8
    assert any("by the checkpoint's args" in note for note in converted.notes)
    assert not any("max and avgmax" in note for note in converted.notes)


def test_config_json_goes_before_the_folders_name(tmp_path: Path) -> None:
    place = tmp_path / "vit_small_patch16_224"
    place.mkdir()
    path = folder(place, weights(name=TINY, depth=1))
    assert convert(path).model.config.num_heads == 3


def test_a_name_on_tensors_of_another_width_is_refused(tmp_path: Path) -> None:
    """vit_tiny's three heads on a width of 384 would be wrong in silence."""
    path = saved(tmp_path / f"{TINY}.pth", weights(name="vit_small_patch16_224", depth=1))
    assert "has 3 heads, the tensors are 384 wide" in refusal(path)
    assert convert(path, num_heads=6).model.config.num_heads == 6


def test_registers_with_positions_under_any_name(tmp_path: Path) -> None:
    """timm's own default places registers too; their positions become part of them."""
    model = make_model(num_register_tokens=3, image_size=(32, 48))
    tensors = dict(model.state_dict())
    position, added = tensors["pos_embed"], seeded("added", (1, 3, 32), 2)
    tensors["pos_embed"] = torch.cat([position[:, :1], added, position[:, 1:]], dim=1)
    tensors["reg_token"] = tensors["reg_token"] - added
    path = saved(tmp_path / "mine.pth", tensors)
    converted = convert(path, num_heads=2, image_size=(32, 48))
    images = seeded("images", (1, 3, 32, 48), 5)
    with torch.no_grad():
        torch.testing.assert_close(converted.model(images), model(images), atol=1e-5, rtol=0)
