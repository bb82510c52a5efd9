"""The live libraries: their models with random weights, saved their way, converted, compared.

Run by `make parity`. Preprocessing is compared to the last bit, logits to 1e-4, maps to 1e-5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.references.seeded import foreign_weights, seeded, seeded_weights
from tests.weights_convert.agreement import assert_agrees
from weights_convert import ConvertError, convert, export

pytestmark = pytest.mark.parity

REFERENCES = Path(__file__).parents[1] / "references"
# (width, height): 3:2 both ways, odd, smaller than the model's picture, and one whose centre falls
# between two pixels
PHOTOS = [(600, 400), (400, 600), (333, 501), (97, 61), (640, 427)]


def photo(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def reseed(model: nn.Module, make: Any = foreign_weights) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(make(shapes, 11))


# ---- torchvision, transformers, PyTorch-Pretrained-ViT -------------------------------------------

PYPI = (
    "torchvision", "torchvision_pre_logits", "lukemelas", "hf_vit", "hf_deit", "hf_deit_teacher",
    "hf_dinov2", "hf_dinov2_swiglu", "hf_dinov2_registers", "hf_clip",
)  # fmt: skip


@pytest.mark.parametrize("how", ["its own", "state_dict"])
@pytest.mark.parametrize("case", PYPI)
def test_models_saved_their_way(case: str, how: str, tmp_path: Path) -> None:
    """transformers saves by the published names; its state_dict() has those of version 5."""
    from tests.references.make_pypi import run

    model, pictures, outputs = run(case)
    options: dict[str, Any] = {}
    path = tmp_path / "weights.pth"
    if how == "its own" and case.startswith("hf"):
        model.save_pretrained(tmp_path)
        path = tmp_path
    else:
        torch.save(model.state_dict(), path)
        if case.startswith("hf"):
            model.config.save_pretrained(tmp_path)
        else:
            options["num_heads"] = outputs.attentions[0].shape[1]
    if case == "lukemelas":
        options["image_size"] = tuple(pictures.shape[-2:])
    expected = {"output": outputs.output, "tokens": outputs.tokens}
    expected |= {f"attention.{i}": weights for i, weights in enumerate(outputs.attentions)}
    assert_agrees(convert(path, **options).model, pictures, expected)


def test_a_transformer_without_a_head_gives_what_its_pooler_gives(tmp_path: Path) -> None:
    import transformers

    settings = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    config = transformers.ViTConfig(
        **settings, num_attention_heads=2, image_size=32, patch_size=8, pooler_output_size=24
    )
    theirs = transformers.ViTModel(config).eval()
    reseed(theirs)
    theirs.save_pretrained(tmp_path)
    pictures = seeded("pictures", (2, 3, 32, 32), 5)
    with torch.no_grad():
        result = theirs(pictures)
    assert_agrees(
        convert(tmp_path).model,
        pictures,
        {"output": result.pooler_output, "tokens": result.last_hidden_state},
    )


@pytest.mark.parametrize("case", PYPI)
def test_stored_outputs_are_what_their_script_makes(case: str) -> None:
    from tests.references.make_pypi import make

    stored = load_file(REFERENCES / f"convert_{case}.safetensors")
    made, _ = make(case)
    assert made.keys() == stored.keys()
    for key, tensor in made.items():
        torch.testing.assert_close(stored[key], tensor, atol=1e-5, rtol=0)


# ---- timm ----------------------------------------------------------------------------------------

TIMM = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_384.augreg_in1k",
    "vit_small_patch32_224",
    "vit_base_patch32_384",
    "vit_base_patch16_224_miil",
    "vit_small_patch8_224.dino",
    "vit_medium_patch16_gap_256",
    "vit_little_patch16_reg4_gap_256",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_384",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch32_clip_224.openai",
    "vit_base_patch32_clip_quickgelu_224.openai",
    "vit_base_patch16_clip_384",
    "test_vit",
    "test_vit2",  # a register with a position
    "vit_so150m2_patch16_reg1_gap_256",
)


def timm_twin(name: str, **options: Any) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """timm's model with seeded weights, pictures, and what it makes of them."""
    timm = pytest.importorskip("timm")
    from tests.references.make_vit import attention_maps

    model = timm.create_model(name, **options).eval()
    reseed(model, seeded_weights)
    maps = attention_maps(model)
    pictures = seeded("pictures", (1, *model.default_cfg["input_size"]), 3)
    with torch.no_grad():
        expected = {"output": model(pictures)}
    expected |= {f"attention.{i}": weights for i, weights in maps.items()}
    return model, pictures, expected


@pytest.mark.parametrize("name", TIMM)
def test_timm_by_name(name: str, tmp_path: Path) -> None:
    """Whole models, by nothing but the file's name; logits relative to their scale."""
    from timm.data import create_transform, resolve_data_config

    model, pictures, expected = timm_twin(name)
    path = tmp_path / f"{name}.safetensors"
    save_file(model.state_dict(), path)
    converted = convert(path)
    assert_agrees(converted.model, pictures, expected)
    transform = create_transform(**resolve_data_config(model.pretrained_cfg))
    for size in PHOTOS:
        assert torch.equal(converted.model.preprocess(photo(*size)), transform(photo(*size))), size
    heads = [block.attn.num_heads for block in model.blocks]
    assert set(heads) == {converted.model.config.num_heads}


def test_timm_folder_of_the_hub(tmp_path: Path) -> None:
    """config.json names the architecture, its own preprocessing goes before the table's."""
    from timm.data import create_transform, resolve_data_config
    from timm.models import save_for_hf

    model, pictures, expected = timm_twin("vit_tiny_patch16_224", num_classes=37)
    model.pretrained_cfg |= {"crop_pct": 0.95, "interpolation": "bilinear", "num_classes": 37}
    save_for_hf(model, tmp_path, safe_serialization=True)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"]
    converted = convert(tmp_path)
    assert_agrees(converted.model, pictures, expected)
    transform = create_transform(**resolve_data_config(model.pretrained_cfg))
    for size in PHOTOS:
        assert torch.equal(converted.model.preprocess(photo(*size)), transform(photo(*size))), size


# ---- preprocessing of the others -----------------------------------------------------------------

TORCHVISION = {
    "vit_b_16-c867db91": ("vit_b_16", "IMAGENET1K_V1"),
    "vit_b_32-d86f8d99": ("vit_b_32", "IMAGENET1K_V1"),
    "vit_l_16-852ce7e3": ("vit_l_16", "IMAGENET1K_V1"),
    "vit_l_32-c7638314": ("vit_l_32", "IMAGENET1K_V1"),
    "vit_b_16_swag-9ac1b537": ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
    "vit_b_16_lc_swag-4e70ced5": ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1"),
    "vit_h_14_swag-80465313": ("vit_h_14", "IMAGENET1K_SWAG_E2E_V1"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_photos_as_torchvision_takes_them(name: str, tmp_path: Path) -> None:
    import torchvision

    architecture, weights = TORCHVISION[name]
    preset = torchvision.models.get_model_weights(architecture)[weights]
    size = preset.meta["min_size"][0]
    patch = int(architecture[-2:])
    model = torchvision.models.VisionTransformer(size, patch, 1, 1, 64, 64)
    torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    preprocess = convert(tmp_path / f"{name}.pth").model.preprocess
    transform = preset.transforms()
    for photo_size in PHOTOS:
        # torchvision's presets low-pass a picture as Pillow does
        assert torch.equal(preprocess(photo(*photo_size)), transform(photo(*photo_size)))


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    ("model", "processor", "options"),
    [
        ("ViT", "ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
        (
            "DeiT",
            "DeiTImageProcessorPil",
            {
                "size": {"height": 256, "width": 256},
                "crop_size": {"height": 224, "width": 224},
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            },
        ),
        (
            "Dinov2",
            "BitImageProcessorPil",
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
                "do_convert_rgb": True,
            },
        ),
        (
            "CLIPVision",
            "CLIPImageProcessorPil",
            {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        ),
    ],
)
def test_photos_as_transformers_takes_them(
    model: str, processor: str, options: dict[str, Any], stated: bool, tmp_path: Path
) -> None:
    """With its preprocessor_config.json, and without: the settings of the published models."""
    import transformers

    config = getattr(transformers, f"{model}Config")(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    getattr(transformers, f"{model}Model")(config).save_pretrained(tmp_path)
    theirs = getattr(transformers, processor)(**options)
    if stated:
        theirs.save_pretrained(tmp_path)
    ours = convert(tmp_path).model.preprocess
    for size in PHOTOS:
        expected = torch.from_numpy(theirs(photo(*size))["pixel_values"][0])
        assert torch.equal(ours(photo(*size)), expected), size


def test_photos_as_pretrained_vits_readme_takes_them(tmp_path: Path) -> None:
    from torchvision import transforms

    from tests.references.make_pypi import run

    model, pictures, _ = run("lukemelas")
    torch.save(model.state_dict(), tmp_path / "B_16_imagenet1k.pth")
    ours = convert(
        tmp_path / "B_16_imagenet1k.pth", num_heads=2, image_size=tuple(pictures.shape[-2:])
    ).model.preprocess
    theirs = transforms.Compose(
        [
            transforms.Resize(tuple(pictures.shape[-2:])),
            transforms.ToTensor(),
            transforms.Normalize(0.5, 0.5),
        ]
    )
    for size in PHOTOS:
        assert torch.equal(ours(photo(*size)), theirs(photo(*size)))


# ---- and back ------------------------------------------------------------------------------------


def test_an_exported_model_runs_in_timm(tmp_path: Path) -> None:
    import timm

    from tests.references.make_vit import attention_maps

    model, pictures, expected = timm_twin("deit_tiny_distilled_patch16_224")
    save_file(model.state_dict(), tmp_path / "deit_tiny_distilled_patch16_224.safetensors")
    ours = convert(tmp_path / "deit_tiny_distilled_patch16_224.safetensors").model
    export(ours, tmp_path / "home.safetensors")
    again = timm.create_model(
        "deit_tiny_distilled_patch16_224", checkpoint_path=str(tmp_path / "home.safetensors")
    ).eval()
    attention_maps(again)  # explicit attention, as when `expected` was made
    with torch.no_grad():
        assert torch.equal(again(pictures), expected["output"])


@pytest.mark.parametrize("name", ["vit_base_patch16_rpn_224", "vit_small_patch16_rope_ape_224"])
def test_timms_other_models_are_refused(name: str, tmp_path: Path) -> None:
    import timm

    save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    with pytest.raises(ConvertError):
        convert(tmp_path / f"{name}.safetensors")
