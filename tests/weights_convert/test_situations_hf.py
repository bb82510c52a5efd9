"""What people bring from transformers: class x head x pooling x processor x container.

Each combination is made by transformers' own classes, saved in one of three ways, and converted:
output and last-block maps agree to 1e-4, photos to the last bit, or it is refused by a message that
names the cause. Run by `make parity`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.references.seeded import foreign_weights, seeded
from weights_convert import ConvertError, convert
from weights_convert.transformers_classes import FAMILIES

pytestmark = pytest.mark.parity

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 16,
}
NAMES = {0: "cat", 1: "dog", 2: "owl"}


class Case(NamedTuple):
    """A model: its class, what differs from `SMALL`, and how it is made where that is special."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012
    made: dict[str, Any] = {}  # noqa: RUF012

    def __str__(self) -> str:
        settings = ",".join(f"{key}={value}" for key, value in (self.options | self.made).items())
        return f"{self.name}({settings})"


CLASSES = [
    Case("ViTModel"),
    Case("ViTModel", {}, {"add_pooling_layer": False}),
    Case("ViTModel", {"pooler_output_size": 24}),
    Case("ViTForImageClassification"),
    Case("ViTForImageClassification", {"num_labels": 0}),
    Case("ViTForImageClassification", {"qkv_bias": False}),
    Case("ViTForImageClassification", {"image_size": [32, 48]}),
    Case("ViTForImageClassification", {"image_size": [16, 64]}),
    Case("ViTForImageClassification", {"patch_size": [8, 4]}),
    Case("ViTForImageClassification", {"num_channels": 1}),
    Case("ViTForImageClassification", {"hidden_act": "gelu_new"}),
    Case("ViTForImageClassification", {"hidden_act": "quick_gelu"}),
    Case("ViTForImageClassification", {"hidden_act": "relu"}),
    Case("ViTForImageClassification", {"hidden_size": 48, "num_attention_heads": 12}),
    Case("ViTForMaskedImageModeling", {"encoder_stride": 8}),
    Case("DeiTModel"),
    Case("DeiTForImageClassification"),
    Case("DeiTForImageClassificationWithTeacher"),
    Case("DeiTForMaskedImageModeling", {"encoder_stride": 8}),
    Case("ViTMSNModel"),
    Case("ViTMSNForImageClassification"),
    Case("ViTMAEModel"),
    Case("ViTMAEForPreTraining", {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}),
    Case("IJepaModel"),
    Case("IJepaForImageClassification"),
    Case("Dinov2Model"),
    Case("Dinov2Model", {"use_swiglu_ffn": True}),
    Case("Dinov2ForImageClassification"),
    Case("Dinov2ForImageClassification", {"num_channels": 1}),
    Case("Dinov2Backbone"),
    Case("Dinov2WithRegistersModel"),
    Case("Dinov2WithRegistersBackbone"),
    Case("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 3}),
    Case("CLIPVisionModel"),
    Case("CLIPVisionModelWithProjection"),
    Case("CLIPVisionModelWithProjection", {"hidden_act": "gelu"}),
    Case("CLIPModel"),
    Case("CLIPForImageClassification"),
    Case("CLIPForImageClassification", {"hidden_size": 48, "num_attention_heads": 12}),
    Case("MetaClip2VisionModel"),
    Case("MetaClip2Model"),
    Case("MetaClip2ForImageClassification"),
    Case("MetaClip2VisionModelWithProjection"),
    Case("ChineseCLIPVisionModel"),
    Case("ChineseCLIPModel"),
    Case("AltCLIPModel"),
    Case("AltCLIPVisionModel"),
    Case("CLIPSegModel"),
    Case("CLIPSegVisionModel"),
    Case("SiglipForImageClassification"),
    Case("SiglipVisionModel", {"vision_use_head": False}),
]
CONTAINERS = ("save_pretrained", "pytorch_model.bin", "state_dict and config.json")


def make(case: Case) -> nn.Module:
    """The model with seeded weights, its attention computed so that maps can be had."""
    import transformers

    transformers.logging.set_verbosity_error()
    stem = next(
        case.name.removesuffix(end)
        for end in (
            "VisionModelWithProjection",
            "VisionModel",
            "Model",
            "Backbone",
            "ForPreTraining",
            "ForMaskedImageModeling",
            "ForImageClassificationWithTeacher",
            "ForImageClassification",
            "ForImageSegmentation",
        )
        if case.name.endswith(end)
    )
    options = SMALL | case.options
    labels = {} if options.pop("num_labels", 3) == 0 else {"id2label": NAMES}
    if not labels:
        labels = {"num_labels": 0}
    if "VisionModel" in case.name:
        config = getattr(transformers, f"{stem}VisionConfig")(**options, projection_dim=24)
    elif hasattr(transformers, f"{stem}VisionConfig"):
        vision = getattr(transformers, f"{stem}VisionConfig")(**options)
        config = getattr(transformers, f"{stem}Config")(
            vision_config=vision.to_dict(), text_config=TEXT, projection_dim=24, **labels
        )
    else:
        config = getattr(transformers, f"{stem}Config")(**options, **labels)
    model = getattr(transformers, case.name)(config, **case.made).eval()
    model.set_attn_implementation("eager")
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = foreign_weights({n: s for n, s in shapes.items() if n != "logit_scale"}, 11)
    model.load_state_dict(weights, strict=False)
    return model


def save(model: Any, folder: Path, container: str) -> Path:
    """As people keep it; the third has no `architectures`: the tensors tell the class."""
    if container == "state_dict and config.json":
        model.config.architectures = None
        model.config.save_pretrained(folder)
        torch.save({"epoch": 3, "model_state_dict": model.state_dict()}, folder / "mine.pth")
        return folder / "mine.pth"
    model.save_pretrained(folder)
    if container == "pytorch_model.bin":  # the published names, in a pickle
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


@torch.no_grad()
def run(model: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The class's own output and the last block's maps."""
    name = type(model).__name__
    options: dict[str, Any] = {"output_attentions": True}
    if "MAE" in name:  # all patches, in their order
        model = getattr(model, "vit", model)
        model.config.mask_ratio = 0.0
        patches = (pictures.shape[-1] // 8) * (pictures.shape[-2] // 8)
        options["noise"] = torch.arange(float(patches)).expand(len(pictures), -1)
    if "MaskedImageModeling" in name:
        model = model.base_model
    if name.endswith("Model") and hasattr(model, "text_model"):
        result = model.get_image_features(pictures, **options)
    else:
        result = model(pictures, **options)
    tokens = getattr(result, "last_hidden_state", None)
    if name.endswith("Backbone"):  # its output is maps of features: the tokens by hand
        tokens = model.layernorm(model.encoder(model.embeddings(pictures)).last_hidden_state)
    for key in ("logits", "image_embeds", "pooler_output"):
        output = getattr(result, key, None)
        if output is not None:
            break
    else:
        assert tokens is not None
        output = tokens.mean(1) if name.startswith(("IJepa", "Siglip")) else tokens[:, 0]
    return output, result.attentions[-1]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("case", CLASSES, ids=str)
def test_each_class_by_its_own_rule(case: Case, container: str, tmp_path: Path) -> None:
    model = make(case)
    converted = convert(save(model, tmp_path, container))
    ours = converted.model
    pictures = seeded("pictures", (2, ours.config.in_channels, *ours.config.image_size), 5)
    output, maps = run(model, pictures)
    with torch.no_grad():
        logits, attentions = ours(pictures, return_attention=[-1])
    torch.testing.assert_close(logits, output, atol=1e-4, rtol=0)
    torch.testing.assert_close(attentions[0], maps, atol=1e-5, rtol=0)
    assert output.std() > 0.05 and maps.std() > 0.005  # there was something to get wrong
    named = container != CONTAINERS[2]
    assert not named or any(case.name in note for note in converted.notes)
    classifies = "ForImageClassification" in case.name and case.options.get("num_labels") != 0
    assert ours.labels == (("cat", "dog", "owl") if classifies else None)
    assert not any("no names" in note for note in converted.notes)


# ---- settings that config.json leaves out, and positions of another grid -------------------------


@pytest.mark.parametrize("name", ["CLIPForImageClassification", "SiglipForImageClassification"])
def test_what_config_json_leaves_out_is_the_classs_default(name: str, tmp_path: Path) -> None:
    """A nested config is written as far as it differs: twelve heads are not."""
    model = make(Case(name, {"hidden_size": 48, "num_attention_heads": 12}))
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for key in ("num_attention_heads", "hidden_act", "layer_norm_eps"):
        settings["vision_config"].pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    pictures = seeded("pictures", (2, 3, 32, 32), 5)
    output, maps = run(model, pictures)
    logits, attentions = convert(tmp_path).model(pictures, return_attention=[-1])
    torch.testing.assert_close(logits, output, atol=1e-4, rtol=0)
    torch.testing.assert_close(attentions[0], maps, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(24, 40), (48, 64)])
@pytest.mark.parametrize(
    "name",
    [
        "ViTForImageClassification",
        "DeiTForImageClassification",
        "ViTMSNForImageClassification",
        "IJepaForImageClassification",
        "Dinov2ForImageClassification",
        "Dinov2WithRegistersForImageClassification",
        "CLIPVisionModelWithProjection",
        "SiglipForImageClassification",
    ],
)
def test_positions_of_another_grid(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    model = make(Case(name))
    model.save_pretrained(tmp_path)
    converted = convert(tmp_path)
    pictures = seeded("pictures", (2, 3, *size), 5)
    options = {} if name.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        result = model(pictures, **options, output_attentions=True)
        logits, attentions = converted.model(pictures, return_attention=[-1])
    expected = result.logits if hasattr(result, "logits") else result.image_embeds
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(attentions[0], result.attentions[-1], atol=1e-5, rtol=0)
    rule = [note for note in converted.notes if "0.1 added to rows and columns" in note]
    assert bool(rule) == (name == "Dinov2ForImageClassification")


# ---- what is refused -----------------------------------------------------------------------------

REFUSED: list[tuple[Case, str]] = [
    (Case("SiglipVisionModel"), "SiglipVisionModel pools by attention"),
    (Case("SiglipModel"), "SiglipModel pools by attention"),
    (Case("ViTModel", {"pooler_act": "relu"}), "pooler_act 'relu'; minivit's pooler is tanh"),
    (Case("ViTForImageClassification", {"hidden_act": "silu"}), "hidden_act 'silu' is unknown"),
    (Case("ViTForImageClassification", {"num_channels": 4}), "pictures of 4 channels; photos hav"),
    (
        Case("CLIPForImageClassification", {"num_channels": 2}),
        "pictures of 2 channels; photos have",
    ),
    (Case("CLIPSegForImageSegmentation"), "'CLIPSegForImageSegmentation', a class that minivit d"),
    (Case("BeitForImageClassification"), "BeitForImageClassification"),
    (Case("Data2VecVisionForImageClassification"), "Data2VecVisionForImageClassification"),
    (Case("YolosModel", {"image_size": [32, 32]}), "YolosModel"),
    (Case("DINOv3ViTModel"), "DINOv3ViTModel"),
    (Case("XCLIPVisionModel", {"mit_hidden_size": 32}), "XCLIPVisionModel"),
    (Case("OwlViTVisionModel"), "OwlViTVisionModel"),
    (Case("Siglip2VisionModel"), "Siglip2VisionModel"),
    (Case("VideoMAEModel", {"num_frames": 2}), "VideoMAEModel"),
    (Case("BlipVisionModel"), "BlipVisionModel"),
]


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_other_classes_are_refused_by_their_name(case: Case, message: str, tmp_path: Path) -> None:
    make(case).save_pretrained(tmp_path)
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MyViT"]}, "config.json says 'MyViT', a class that minivit does not"),
        ({"architectures": ["ViTModel"]}, "ViTModel has no 'classifier', yet the file has"),
        ({"num_hidden_layers": 3}, "says num_hidden_layers 3, the weights have 2"),
        ({"hidden_size": 64}, "says hidden_size 64, the weights have 32"),
        ({"patch_size": 16}, r"says patch_size 16, the weights have \(8, 8\)"),
        ({"image_size": 64}, "says image_size 64, the weights have 16 patches"),
        ({"num_attention_heads": 5}, "num_heads is 5, which does not divide dim 32"),
    ],
)
def test_a_config_json_of_another_model_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    make(Case("ViTForImageClassification")).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path)


# ---- processors ----------------------------------------------------------------------------------

# A photo's (width, height): the model's own, 3:2 both ways, and one whose centre lies between two
PHOTOS = [(32, 32), (60, 40), (41, 67)]
SQUARE = {"size": {"height": 32, "width": 32}}
EDGE = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


class Switches(NamedTuple):
    """A processor of transformers, its settings, and whether only photos of 32 x 32 pass it."""

    processor: str
    settings: dict[str, Any]
    only_its_size: bool = False

    def __str__(self) -> str:
        return f"{self.processor}({self.settings})"[:90]


PROCESSORS = [
    Switches("ViT", SQUARE),
    Switches("ViT", {"size": 32}),
    Switches("ViT", {"size": [32, 32]}),
    Switches("ViT", SQUARE | {"resample": 0}),
    Switches("ViT", SQUARE | {"resample": 1}),
    Switches("ViT", SQUARE | {"resample": 3}),
    Switches("ViT", SQUARE | {"do_normalize": False}),
    Switches("ViT", SQUARE | {"do_rescale": False}),
    Switches("ViT", SQUARE | {"do_rescale": False, "do_normalize": False}),
    Switches("ViT", SQUARE | {"rescale_factor": 1 / 127.5}),
    Switches("ViT", SQUARE | {"rescale_factor": 1 / 127.5, "do_normalize": False}),
    Switches("ViT", SQUARE | {"rescale_factor": 0.01, "image_mean": [0.4, 0.5, 0.6]}),
    Switches("ViT", SQUARE | {"image_mean": 0.4, "image_std": 0.3}),
    Switches("ViT", SQUARE | {"do_resize": False}, only_its_size=True),
    Switches("ViT", SQUARE | {"do_convert_rgb": True}),
    Switches("ViT", {"size": 40, "do_center_crop": True, "crop_size": 32}),
    Switches("ViT", {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": 32}),
    Switches("ViT", {"size": {"height": 48, "width": 24}}),
    Switches("DeiT", {"size": 40, "crop_size": 32}),
    Switches("DeiT", {"size": 32, "do_center_crop": False}),
    Switches(
        "DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
    ),
    Switches("CLIP", EDGE),
    Switches("CLIP", {"size": 32, "crop_size": 32}),
    Switches("CLIP", {"size": 40, "crop_size": 32, "do_normalize": False}),
    Switches("CLIP", SQUARE | {"do_center_crop": False}),
    Switches("CLIP", EDGE | {"do_rescale": False}),
    Switches("Bit", EDGE),
    Switches("Bit", EDGE | {"resample": 2}),
    Switches("Siglip", SQUARE),
    Switches("ChineseCLIP", EDGE),
    Switches("ConvNext", {"size": {"shortest_edge": 32}}),
    Switches("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.95}),
    Switches("ConvNext", {"size": {"shortest_edge": 384}}),
]


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    generator = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))


def vit_beside(settings: dict[str, Any], folder: Path, **options: Any) -> Path:
    make(Case("ViTForImageClassification", options)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("written", ["save_pretrained", "by hand", "in processor_config.json"])
@pytest.mark.parametrize("switches", PROCESSORS, ids=str)
def test_photos_by_every_switch(switches: Switches, written: str, tmp_path: Path) -> None:
    """By hand: only what differs is written, under a name of old."""
    import transformers

    theirs = getattr(transformers, f"{switches.processor}ImageProcessorPil")(**switches.settings)
    old = {"feature_extractor_type": f"{switches.processor}FeatureExtractor"}
    settings = switches.settings | old if written == "by hand" else theirs.to_dict()
    vit_beside(json.loads(json.dumps(settings)), tmp_path)
    if written == "in processor_config.json":
        stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
        (tmp_path / "preprocessor_config.json").unlink()
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": stated}))
    converted = convert(tmp_path)
    ours = converted.model.preprocess
    assert not any("no preprocessor_config.json" in note for note in converted.notes)
    assert any("do_resize" in note for note in converted.notes) == switches.only_its_size
    exact = theirs.do_rescale and theirs.rescale_factor == 1 / 255
    for size in PHOTOS[: 1 if switches.only_its_size else None]:
        result = theirs(photo(*size), return_tensors="pt")["pixel_values"][0].float()
        if exact:
            assert torch.equal(ours(photo(*size)), result), size
        else:  # the factor is folded into mean and std: the last digit of float32 differs
            scale = float(result.abs().max())
            torch.testing.assert_close(ours(photo(*size)), result, atol=3e-7 * scale, rtol=0)


def test_grey_photos_for_one_channel(tmp_path: Path) -> None:
    from transformers import ViTImageProcessorPil

    theirs = ViTImageProcessorPil(**SQUARE, image_mean=[0.4], image_std=[0.2])
    ours = convert(vit_beside(theirs.to_dict(), tmp_path, num_channels=1)).model.preprocess
    for size in PHOTOS:
        grey = photo(*size, mode="L")
        expected = theirs(grey, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(ours(grey), expected) and expected.shape == (1, 32, 32)
        coloured = photo(*size)
        expected = theirs(coloured.convert("L"), return_tensors="pt")["pixel_values"][0]
        assert torch.equal(ours(coloured), expected)


SWITCHES_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size": {"shortest_edge": 32}}, "size is a shortest_edge and do_center_crop is off"),
    ({"size": {"longest_edge": 32}}, "size is {'longest_edge': 32}"),
    ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size is {'shortest_edge': 32, 'long"),
    ({"size": 32, "do_center_crop": True, "crop_size": 48}, "crop_size is above size"),
    (
        {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": [32, 24]},
        "size is a shortest_edge and crop_size is not square",
    ),
    (
        {"size": {"height": 40, "width": 32}, "do_center_crop": True, "crop_size": 32},
        "crop_size 32x32 has another shape than size",
    ),
    (
        SQUARE | {"do_resize": False, "do_center_crop": True, "crop_size": 32},
        "do_resize is off but do_center_crop is on",
    ),
    (SQUARE | {"do_pad": True, "pad_size": 64}, "do_pad is on"),
    (SQUARE | {"do_grayscale": True}, "do_grayscale is on"),
    (
        SQUARE | {"image_mean": [0.5]},
        "image_mean and image_std have 1 and 3 numbers, the model",
    ),
    (SQUARE | {"image_std": [0.5, 0.0, 0.5]}, "std"),
    (SQUARE | {"resample": 9}, "9 is not a valid Resampling"),
    ({"size": {"height": 36, "width": 36}}, "36x36 pixels, no whole number of patches of 8x8"),
]


@pytest.mark.parametrize(("settings", "message"), SWITCHES_REFUSED, ids=lambda v: str(v)[:60])
def test_switches_that_cannot_be_obeyed_are_named(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConvertError, match=f"preprocessor_config.json.*{message}"):
        convert(vit_beside(settings, tmp_path))


# ---- the count -----------------------------------------------------------------------------------

COUNTED: dict[str, Callable[[], int]] = {
    "classes and containers": lambda: len(CLASSES) * len(CONTAINERS),
    "refused classes": lambda: len(REFUSED),
    "processors": lambda: len(PROCESSORS) * 3,
    "refused switches": lambda: len(SWITCHES_REFUSED),
}


def test_every_class_of_these_towers_is_here() -> None:
    """Each class of transformers with such a tower is compared, or refused by its name."""
    import transformers

    compared = {case.name for case in CLASSES} | {case.name for case, _ in REFUSED}
    stems = ("ViT", "DeiT", "IJepa", "Dinov2", "CLIP", "MetaClip2", "ChineseCLIP", "AltCLIP")
    of_transformers = set()
    for name in dir(transformers):
        if not name.startswith((*stems, "Siglip")) or name.endswith("PreTrainedModel"):
            continue
        kind = getattr(transformers, name, None)
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            model_type = getattr(kind.config_class, "model_type", "")
            if model_type.removesuffix("_vision_model") in FAMILIES:
                of_transformers.add(name)
    assert len(of_transformers) > 30
    assert of_transformers <= compared
    assert {name for family in FAMILIES.values() for name in family.classes} <= compared


def test_there_are_enough_situations() -> None:
    counts = {name: count() for name, count in COUNTED.items()}
    assert sum(counts.values()) >= 240, counts
    assert len({str(case) for case in CLASSES}) == len(CLASSES)
    assert len({str(case) for case in PROCESSORS}) >= len(PROCESSORS) - 1
