"""Each symptom on a model or picture that has it, and on one that has not; numbers by numpy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import minivit
from minivit import Preprocess, VisionTransformer
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explain import Symptom, diagnose, record
from minivit.explain.describe.doctor import examine
from tests.explain import by_hand
from tests.explain.untouched import untouched
from tests.explain.vits import COLS, ROWS, attention_arrays, make_images, make_model

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
OPTIONS: dict[str, Any] = {"photo_size": (48, 32), "half": torch.bfloat16}


def look(model: VisionTransformer, images: Tensor, name: str, **options: Any) -> Symptom:
    """One symptom by its name, which `diagnose` gives where it is above its threshold alone."""
    (symptom,) = [each for each in examine(model, images, **options) if each.name == name]
    names = [each.name for each in diagnose(model, images, **options)]
    assert (name in names) == symptom.is_present == (symptom.number > symptom.threshold)
    return symptom


def one_block(kind: str = "class token", **options: Any) -> VisionTransformer:
    """A model of one block and one head, whose queries and keys see plain normalised tokens."""
    model = make_model(kind, depth=1, num_heads=1, layer_scale=None, **options)
    with torch.no_grad():
        block: Any = model.blocks[0]
        block.norm1.weight.fill_(1)
        block.norm1.bias.zero_()
        block.attn.qkv.bias.zero_()
    return model


# ---- whole pictures ------------------------------------------------------------------------------


def test_the_shipped_model_is_well_on_scenes() -> None:
    model = minivit.load_model("scenes")
    for number in range(12):
        picture = make_scene(TEST_SEED, number, image_size=model.preprocess.image_size).image
        images = model.preprocess(picture)[None]
        symptoms = examine(model, images, photo_size=picture.size, half=torch.bfloat16)
        assert len(symptoms) == 9 and not any(each.is_present for each in symptoms)
        assert diagnose(model, images, photo_size=picture.size, half=torch.bfloat16) == []


def test_the_worst_comes_first_and_findings_are_what_is_above_the_threshold() -> None:
    model, images = make_model(), make_images(1)
    with torch.no_grad():
        block: Any = model.blocks[0]
        block.attn.qkv.weight[:24] *= 100
    symptoms = examine(model, 255 * images, **OPTIONS)
    factors = [each.number / each.threshold for each in symptoms]
    assert factors == sorted(factors, reverse=True) and factors[0] > 100
    findings = diagnose(model, 255 * images, **OPTIONS)
    assert findings == [each for each in symptoms if each.number > each.threshold]
    assert 2 <= len(findings) < len(symptoms)
    for each in symptoms:
        assert each.text and each.advice and "\n" not in each.text + each.advice


def test_without_a_class_token_nothing_is_said_of_its_row() -> None:
    names = {each.name for each in examine(make_model("mean"), make_images(1))}
    assert names == {
        "outlier tokens", "self-looking head", "one-hot rows", "input range", "resolution",
    }  # fmt: skip


# ---- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "is_present"), [(1.0, False), (40.0, True)])
def test_a_long_token_is_found_after_the_block_that_made_it(
    factor: float, is_present: bool
) -> None:
    model, images = make_model(), make_images(1)

    def lengthen(module: nn.Module, arguments: object, outputs: Any) -> Any:
        tokens = outputs[0].clone()
        tokens[:, model.num_prefix_tokens + 7] *= factor
        return tokens, outputs[1]

    model.blocks[1].register_forward_hook(lengthen)
    with record(model, "outputs") as recording, torch.no_grad():
        model(images)
    lengths = [
        np.linalg.norm(recording["outputs", i][0, model.num_prefix_tokens :].numpy(), axis=1)
        for i in range(3)
    ]
    ratios = [each.max() / np.median(each) for each in lengths]
    symptom = look(model, images, "outlier tokens")
    assert symptom.number == pytest.approx(max(ratios), rel=0.1)  # torch's median of even counts
    assert symptom.is_present == is_present
    assert f"after block {int(np.argmax(ratios))};" in symptom.text
    if is_present:
        count = int((lengths[1] > 3 * np.median(lengths[1])).sum())
        assert f"{count} of {ROWS * COLS} patches" in symptom.text


# ---- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "is_present"), [(0.01, False), (3.0, True)])
def test_a_head_whose_queries_are_its_keys_looks_at_itself(scale: float, is_present: bool) -> None:
    model, images = one_block(), make_images(1)
    with torch.no_grad():
        block: Any = model.blocks[0]
        for first in (0, 24):
            block.attn.qkv.weight[first : first + 24] = scale * torch.eye(24)
    (weights,) = attention_arrays(model, images)
    symptom = look(model, images, "self-looking head")
    own = np.mean([weights[0, 0, i, i] for i in range(1, 25)])
    assert symptom.number == pytest.approx(own, abs=1e-12)
    assert symptom.is_present == is_present and "head 0 of block 0" in symptom.text


@pytest.mark.parametrize(("scale", "is_present"), [(0.1, False), (100.0, True)])
def test_large_queries_make_rows_one_hot(scale: float, is_present: bool) -> None:
    model, images = make_model(), make_images(1)
    with torch.no_grad():
        block: Any = model.blocks[1]
        block.attn.qkv.weight[8:16] *= scale  # the queries of head 1
        block.attn.qkv.bias[8:16] *= scale
        for index in (0, 2):
            other: Any = model.blocks[index]
            other.attn.qkv.weight[:24] *= 0.1
    shares = [(w[0].max(-1) > 0.9).mean(-1) for w in attention_arrays(model, images)]
    symptom = look(model, images, "one-hot rows")
    assert symptom.number == pytest.approx(np.max(shares), abs=1e-12)
    assert symptom.is_present == is_present
    if is_present:
        row = attention_arrays(model, images)[1][0, 1]
        entropy = -(row * np.log(np.maximum(row, 1e-300))).sum(-1)
        effective = np.exp(entropy).mean()
        assert symptom.text.startswith("head 1 of block 1: ")
        assert f"effective number of tokens is {effective:.1f} of {len(row)}" in symptom.text


@pytest.mark.parametrize(("scale", "is_present"), [(0.0, False), (8.0, True)])
def test_registers_that_take_all_are_found(scale: float, is_present: bool) -> None:
    """Register tokens lie along channel 0, which every query asks for."""
    model, images = one_block("registers"), make_images(1)
    with torch.no_grad():
        assert model.reg_token is not None
        model.reg_token.zero_()
        model.reg_token[:, :, 0] = 100
        block: Any = model.blocks[0]
        block.attn.qkv.weight[:48] = 0
        block.attn.qkv.bias[0] = scale
        block.attn.qkv.weight[24, 0] = scale
    (weights,) = attention_arrays(model, images)
    symptom = look(model, images, "attention beside the picture")
    assert symptom.number == pytest.approx(weights[0, 0, 0, :4].sum(), abs=1e-12)
    assert symptom.is_present == is_present
    assert "most of it to the registers" in symptom.text


def test_the_head_that_looks_beside_the_picture_most_is_named() -> None:
    model, images = make_model("distillation"), make_images(1)
    beside = attention_arrays(model, images)[-1][0, :, 0, :3].sum(-1)  # class, distillation, one
    symptom = look(model, images, "attention beside the picture")
    assert symptom.number == pytest.approx(beside.max(), abs=1e-12)
    assert symptom.text.startswith(f"head {beside.argmax()} of the last block")
    assert symptom.text.endswith(f"mean over heads {beside.mean():.0%}")
    assert beside.max() > beside.mean() + 0.01


def test_a_class_token_that_looks_at_itself_is_found() -> None:
    model, images = one_block(), make_images(1)
    with torch.no_grad():
        block: Any = model.blocks[0]
        for first in (0, 24):
            block.attn.qkv.weight[first : first + 24] = 3 * torch.eye(24)
    symptom = look(model, images, "attention beside the picture")
    (weights,) = attention_arrays(model, images)
    assert symptom.is_present and "most of it to itself" in symptom.text
    assert symptom.number == pytest.approx(weights[0, 0, 0, 0], abs=1e-12)
    assert not look(model, images, "one-hot map").is_present  # its one-hot row is not of a patch


@pytest.mark.parametrize(("scale", "is_present"), [(0.1, False), (100.0, True)])
def test_a_map_of_one_dot_is_found(scale: float, is_present: bool) -> None:
    model, images = make_model(), make_images(1)
    with torch.no_grad():
        block: Any = model.blocks[-1]
        block.attn.qkv.weight[:24] *= scale
        block.attn.qkv.bias[:24] *= scale
    to_patches = attention_arrays(model, images)[-1][0, :, 0, model.num_prefix_tokens :]
    symptom = look(model, images, "one-hot map")
    assert symptom.number == pytest.approx(to_patches.max(), abs=1e-12)
    assert symptom.is_present == is_present
    head = int(to_patches.max(-1).argmax())
    assert symptom.text.startswith(f"head {head} of the last block")


# ---- input ---------------------------------------------------------------------------------------


def photo() -> np.ndarray:
    """(3, 32, 48) from 0 to 1, both of them in each channel."""
    values = np.random.default_rng(0).random((3, 32, 48))
    values[:, 0, 0], values[:, 1, 1] = 0, 1
    return values


@pytest.mark.parametrize(
    ("made", "is_present", "advice"),
    [
        (lambda x, mean, std: (x - mean) / std, False, ""),
        (lambda x, mean, std: x, True, "never normalised"),
        (lambda x, mean, std: 255 * x, True, "not divided by 255"),
        (lambda x, mean, std: ((x - mean) / std - mean) / std, True, "normalised twice"),
        (lambda x, mean, std: (0.5 + 0.1 * x - mean) / std, True, "without dark or bright"),
    ],
)
@pytest.mark.parametrize("statistics", [IMAGENET, {"mean": (0.5,) * 3, "std": (0.5,) * 3}])
def test_pixels_that_were_not_made_by_the_models_transform_are_found(
    made: Any, is_present: bool, advice: str, statistics: dict[str, Any]
) -> None:
    model = make_model()
    model.preprocess = Preprocess(image_size=(32, 32), mode="crop", filter="bicubic", **statistics)
    mean, std = (np.array(statistics[key])[:, None, None] for key in ("mean", "std"))
    images = torch.from_numpy(made(photo(), mean, std))[None]
    pixels = images.numpy()[0] * std + mean
    symptom = look(model, images, "input range")
    expected = max(abs(pixels.min()), abs(pixels.max() - 1))
    assert symptom.number == pytest.approx(expected, abs=1e-6)
    assert symptom.is_present == is_present and advice in symptom.advice


@pytest.mark.parametrize(("grid", "factor"), [((4, 6), 1.5), ((8, 8), 2.0), ((2, 4), 2.0)])
def test_a_grid_far_from_the_models_own_is_found(grid: tuple[int, int], factor: float) -> None:
    images = torch.randn(1, 3, 8 * grid[0], 8 * grid[1], dtype=torch.float64)
    symptom = look(make_model(), images, "resolution")  # positions of 4 x 4
    assert symptom.number == factor and symptom.is_present == (factor > 1.5)
    assert f"{grid[0]} × {grid[1]} patches" in symptom.text and "4 × 4" in symptom.text


@pytest.mark.parametrize(
    ("mode", "size", "factor"),
    [("squash", (300, 100), 3), ("squash", (100, 300), 3), ("squash", (50, 50), 1),
     ("crop", (300, 100), 1), ("fit_shortest", (300, 100), 1)],
)  # fmt: skip
def test_a_photo_of_three_to_one_is_squashed_by_one_mode(
    mode: Any, size: tuple[int, int], factor: float
) -> None:
    model = make_model()
    model.preprocess = Preprocess(image_size=(32, 32), mode=mode, filter="bicubic", **IMAGENET)
    symptom = look(model, make_images(1), "squashed photo", photo_size=size)
    assert symptom.number == pytest.approx(factor, rel=0.02)
    assert symptom.is_present == (factor > 1) and f"mode {mode}" in symptom.text
    assert "squashed photo" not in {each.name for each in examine(model, make_images(1))}


# ---- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("sharpness", "is_present"), [(4.0, True), (0.01, False)])
@pytest.mark.parametrize("own", [True, False])
def test_rows_in_bfloat16_are_compared_with_float32(
    sharpness: float, is_present: bool, own: bool
) -> None:
    model, images = make_model().float(), make_images(1).float()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[:24] *= sharpness  # type: ignore[index, operator, union-attr]
            block.attn.qkv.bias[:24] *= sharpness  # type: ignore[index, operator, union-attr]
    rounded = copy.deepcopy(model).bfloat16()
    rows = minivit.AttentionRows(blocks=range(3), queries=[0])
    with torch.no_grad():
        low = rounded(images.bfloat16(), return_attention=rows)[1]
        exact = copy.deepcopy(rounded if own else model).float()
        given = images.bfloat16().float() if own else images
        high = exact(given, return_attention=rows)[1]
    expected = max(float((a - b).abs().max()) for a, b in zip(low, high, strict=True))
    if own:  # the model itself is in bfloat16: nobody has to ask
        symptom = look(rounded, images.bfloat16(), "half precision")
    else:
        symptom = look(model, images, "half precision", half=torch.bfloat16)
        assert "half precision" not in {each.name for each in examine(model, images)}
    assert symptom.number == pytest.approx(expected, abs=1e-7)
    assert symptom.is_present == is_present and "in bfloat16" in symptom.text


# ---- what is refused, and what is left behind ----------------------------------------------------


def test_two_pictures_and_damaged_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="one picture"):
        examine(make_model(), make_images(2))
    model = make_model()
    with torch.no_grad():
        model.patch_embed.proj.weight[0] = float("nan")
    with pytest.raises(ValueError, match="number is nan, expected a finite number"):
        examine(model, make_images(1))


@pytest.mark.parametrize("changes", [{"number": -1.0}, {"threshold": 0.0}])
def test_impossible_numbers_are_refused(changes: dict[str, float]) -> None:
    fields: dict[str, Any] = {"name": "n", "text": "t", "advice": "a"}
    with pytest.raises(ValueError, match=next(iter(changes))):
        Symptom(**fields | {"number": 1.0, "threshold": 1.0} | changes)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_nothing_is_left_behind(mode: Any) -> None:
    model = by_hand.make_model(dropout=0.1, drop_path=0.1).train()
    images = by_hand.make_images(batch=1)
    with untouched(model, images), mode():
        assert len(examine(model, images, **OPTIONS)) == 9
