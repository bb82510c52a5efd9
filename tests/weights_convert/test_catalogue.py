"""The tables of published weights against minivit's own shapes and against the projects' code."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from minivit import VisionTransformer, ViTConfig
from minivit.config import Activation
from minivit.preprocess import Filter
from weights_convert.catalogue import catalogue, find, timm_model

REPOSITORY = Path(__file__).parents[2]
TABLES = REPOSITORY / "weights_convert"
FORMATS = {
    "timm", "jax", "torchvision", "hugging_face", "lukemelas", "dino", "dinov2", "open_clip",
    "catr", "resnet",
}  # fmt: skip


def rows(table: str) -> list[dict[str, str]]:
    with open(TABLES / table, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def model_of(name: str) -> str:
    """The name without its tag."""
    return name.partition(".")[0]


# ---- the tables --------------------------------------------------------------------------------


def test_every_entry_can_be_downloaded_and_converted() -> None:
    for name, entry in catalogue().items():
        assert entry.name == name
        assert entry.format in FORMATS, name
        assert entry.source and entry.licence, name
        assert entry.parameters > 0, name
        assert 4 * entry.parameters <= 1e6 * (entry.megabytes + 0.5), name
        assert re.fullmatch("|[0-9a-f]{8,64}", entry.sha256), name
        files = [(entry.address, entry.file_name), *entry.extra]
        assert len({file for _, file in files}) == len(files), name
        for address, file in files:
            assert re.fullmatch(r"https://[a-z.]+/[\w./+-]+", address), name
            assert re.fullmatch(r"[\w.+-]+\.(safetensors|bin|pth|npz|json|txt)", file), name


def test_names_are_unique() -> None:
    published = [row for row in rows("timm_models.tsv") if row["hub"]]
    assert len(catalogue()) == len(published) + len(rows("other_models.tsv"))


def test_a_name_without_its_tag_belongs_to_one_project() -> None:
    projects: dict[str, set[str]] = {}
    for entry in catalogue().values():
        projects.setdefault(model_of(entry.name).lower(), set()).add(entry.source)
    assert {name: found for name, found in projects.items() if len(found) > 1} == {}


def test_only_what_the_converter_needs_several_files_for_has_several() -> None:
    for entry in catalogue().values():
        extra = [name for _, name in entry.extra]
        if entry.format == "hugging_face":
            assert extra == ["config.json", "preprocessor_config.json"]
        elif entry.format == "open_clip":
            assert extra == ["open_clip_config.json"]
        elif entry.format == "catr":
            assert extra == ["vocab.txt"]
        elif re.search("_lc4?$", entry.name):
            layers = "4" if entry.name.endswith("4") else ""
            backbone = entry.file_name.removesuffix("_pretrain.pth")
            assert extra == [f"{backbone}_linear{layers}_head.pth"]
        else:
            assert extra == []


def test_every_row_of_timm_is_in_minivits_words() -> None:
    for name in (row["name"] for row in rows("timm_models.tsv")):
        known = timm_model(name)
        assert known is not None and known.name == name
        assert known.activation in get_args(Activation), name
        assert known.filter in get_args(Filter), name
        assert known.pooling in ("cls", "mean"), name
        assert known.crop_mode in ("center", "squash"), name
        assert 0 < known.crop_fraction <= 1, name
        assert known.layer_norm_eps in (1e-5, 1e-6), name
        assert all(0 <= value < 1 for value in known.mean), name
        assert all(0 < value <= 1 for value in known.std), name


# ---- looking up --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_small_patch16_384", "vit_small_patch16_384.augreg_in21k_ft_in1k"),
        ("vit_small_patch16_384.augreg_in1k", "vit_small_patch16_384.augreg_in1k"),
        ("vit_base_patch16_224", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k"),
        ("B_16_imagenet1k", "B_16_imagenet1k"),
        ("catr_v1", "catr_v1"),
        ("catr_v2", "catr_v2"),
        ("catr_v3", "catr_v3"),
        ("vit_b_16", "vit_b_16.imagenet1k_v1"),
        ("resnet50", "resnet50.imagenet1k_v2"),
        ("ViT-B_16", "ViT-B_16.imagenet21k+imagenet2012"),
        ("ViT-B-32", "ViT-B-32.openai"),
        ("dinov2_vits14_lc", "dinov2_vits14_lc"),
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224"),
    ],
)
def test_a_name_is_found_with_and_without_its_tag(name: str, expected: str) -> None:
    assert find(name).name == expected


def test_the_first_tag_is_the_one_meant() -> None:
    first: dict[str, str] = {}
    for name in catalogue():
        first.setdefault(model_of(name), name)
    for model, name in first.items():
        assert find(model).name == name
        known = timm_model(model)
        assert known is None or known.name == name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vit_smal_patch16_384", "vit_small_patch16_384"),
        ("vit_small_patch16_384.augreg", "vit_small_patch16_384.augreg_in1k"),
        ("b_16_imagenet1k", "B_16_imagenet1k"),
        ("catr", "catr_v1"),
        ("vit-base-patch16-224", "google/vit-base-patch16-224"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(name))) as raised:
        find(name)
    message = str(raised.value)
    assert nearest in re.split(r"[ ,]+", message)
    assert "--list" in message
    assert "\n" not in message


def test_a_name_like_none_is_answered_without_suggestions() -> None:
    with pytest.raises(ValueError, match="'qqqq' \\(all names"):
        find("qqqq")


def test_what_no_hub_has_in_timms_layout_is_known_but_not_offered() -> None:
    known = timm_model("vit_huge_patch14_gap_224")
    assert known is not None and known.hub == "" and known.num_heads == 16
    with pytest.raises(ValueError, match="no published weights"):
        find("vit_huge_patch14_gap_224")


@pytest.mark.parametrize("name", ["", "B_16_imagenet1k", "vit_small_patch16_384.fb_in1k", "model"])
def test_timm_does_not_know_other_names(name: str) -> None:
    assert timm_model(name) is None


def test_what_files_of_timm_do_not_say() -> None:
    small, quick = (
        timm_model("vit_small_patch16_384"),
        timm_model("vit_base_patch32_clip_quickgelu_224"),
    )
    giant, gigantic = (
        timm_model("vit_giant_patch14_dinov2"),
        timm_model("vit_gigantic_patch14_clip_224"),
    )
    assert small is not None and quick is not None and giant is not None and gigantic is not None
    assert (small.image_height, small.image_width, small.num_heads) == (384, 384, 6)
    assert (small.crop_fraction, small.crop_mode, small.filter) == (1.0, "center", "bicubic")
    assert small.mean == small.std == (0.5, 0.5, 0.5)
    assert (quick.activation, quick.layer_norm_eps) == ("quick_gelu", 1e-5)
    assert quick.mean == (0.48145466, 0.4578275, 0.40821073)
    assert (giant.activation, giant.num_heads, giant.num_classes) == ("swiglu", 24, 0)
    assert gigantic.num_heads == 16


def test_the_tables_are_read_without_torch() -> None:
    heavy = "torch", "numpy", "safetensors"
    program = (
        "import sys; from weights_convert.catalogue import catalogue, find, timm_model; "
        "catalogue(); find('catr_v3'); timm_model('vit_small_patch16_384'); "
        f"print(*sys.modules.keys() & {set(heavy)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


# ---- numbers -----------------------------------------------------------------------------------


def config(name: str, **options: Any) -> ViTConfig:
    return ViTConfig.from_name(name, **options)


HUGE = {"dim": 1280, "depth": 32, "num_heads": 16, "hidden_dim": 5120}
GIANT = {"dim": 1536, "depth": 40, "num_heads": 24, "hidden_dim": 4096, "activation": "swiglu"}
DINOV2 = {"num_classes": 0, "layer_scale": 1.0}
CLIP = {"norm_pre": True, "patch_bias": False, "head_bias": False}

SHAPES = {
    "vit_tiny_patch16_224": config("tiny_patch16_224"),
    "vit_small_patch16_384": config("small_patch16_384"),
    "vit_base_patch8_224.augreg_in21k": config("base_patch8_224", num_classes=21843),
    "vit_base_patch16_224_miil.in21k_ft_in1k": config("base_patch16_224", qkv_bias=False),
    "vit_base_patch16_siglip_gap_224": config(
        "base_patch16_224", num_classes=0, class_token=False, pooling="mean"
    ),
    "vit_base_patch32_clip_quickgelu_224": config(
        "base_patch32_224", num_classes=512, norm_pre=True, patch_bias=False
    ),
    "vit_small_patch14_reg4_dinov2": config(
        "small_patch14_518", num_register_tokens=4, pos_embed_prefix=False, **DINOV2
    ),
    "deit_tiny_distilled_patch16_224": config("tiny_patch16_224", distillation_token=True),
    "deit3_small_patch16_224": config("small_patch16_224", layer_scale=1.0, pos_embed_prefix=False),
    "eva_large_patch14_196": config("large_patch14_196", pooling="mean", fc_norm=True),
    "B_16_imagenet1k": config("base_patch16_384"),
    "L_32_imagenet1k": config("large_patch32_384"),
    "L_32": config("large_patch32_224", num_classes=21843),
    "vit_b_32": config("base_patch32_224"),
    "vit_l_16.imagenet1k_swag_e2e_v1": config("large_patch16_512"),
    "vit_h_14": config("base_patch14_518", **HUGE),
    "dino_vits8": config("small_patch8_224", num_classes=0),
    "dino_vitb16": config("base_patch16_224", num_classes=0),
    "dinov2_vits14": config("small_patch14_518", **DINOV2),
    "dinov2_vitg14": config("base_patch14_518", **(DINOV2 | GIANT)),
    "dinov2_vitl14_reg": config("large_patch14_518", num_register_tokens=4, **DINOV2),
    "dinov2_vitb14_lc": config(
        "base_patch14_518", **(DINOV2 | {"num_classes": 1000}), pooling="cls_and_mean"
    ),
    "dinov2_vits14_reg_lc4": config(
        "small_patch14_518",
        **(DINOV2 | {"num_classes": 1000}),
        num_register_tokens=4,
        pooling="cls_and_mean",
        head_blocks=4,
    ),
    "ViT-B_8": config("base_patch8_384"),
    "ViT-L_16-224": config("large_patch16_224"),
    "ViT-H_14.imagenet21k": config(
        "base_patch14_224", num_classes=21843, representation_dim=1280, **HUGE
    ),
    "ViT-S_32.augreg_i21k": config("small_patch32_224", num_classes=21843),
    "ViT-Ti_16.augreg_i21k_imagenet2012": config("tiny_patch16_384"),
    "ViT-B_32.sam": config("base_patch32_224"),
    "google/vit-large-patch32-384": config("large_patch32_384"),
    "google/vit-base-patch16-224-in21k": config(
        "base_patch16_224", num_classes=0, representation_dim=768
    ),
    "facebook/deit-base-distilled-patch16-384": config("base_patch16_384", distillation_token=True),
    "facebook/dinov2-base": config("base_patch14_518", **DINOV2),
    "facebook/dinov2-with-registers-giant": config(
        "base_patch14_518", num_register_tokens=4, **(DINOV2 | GIANT)
    ),
    "openai/clip-vit-large-patch14-336": config("large_patch14_336", num_classes=768, **CLIP),
    "ViT-B-16.laion2b_s34b_b88k": config("base_patch16_224", num_classes=512, **CLIP),
    "ViT-H-14": config("base_patch14_224", num_classes=1024, **CLIP, **HUGE),
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_shape(name: str) -> None:
    with torch.device("meta"):
        model = VisionTransformer(SHAPES[name])
    assert find(name).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as published: google-research/vision_transformer, models_test.py; torchvision's num_params
        ("vit_tiny_patch16_224", 5_717_416),
        ("vit_small_patch16_224", 22_050_664),
        ("vit_b_16", 86_567_656),
        ("ViT-B_32.sam", 88_224_232),
        ("ViT-L_16-224", 304_326_632),
        ("vit_h_14.imagenet1k_swag_linear_v1", 632_045_800),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
    ],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    assert find(name).parameters == parameters


def test_a_file_that_holds_more_than_the_model_is_larger() -> None:
    for name, million in (("openai/clip-vit-base-patch32", 151.28), ("ViT-L-14", 427.62)):
        assert find(name).megabytes == pytest.approx(4 * million, abs=1)  # with CLIP's text tower


def test_labels_are_imagenets() -> None:
    labels = (TABLES / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[0], labels[281], labels[-1]) == ("tench", "tabby", "toilet tissue")


# ---- live --------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.slow
def test_stored_table_of_timm_is_what_its_script_makes() -> None:
    pytest.importorskip("timm")
    from tests.references import make_timm_models

    made = make_timm_models.make()
    fresh = {row["name"]: row for row in csv.DictReader(made.splitlines(), delimiter="\t")}
    stored = rows("timm_models.tsv")
    for row in stored:
        assert row == fresh.get(row["name"])
    assert [row["name"] for row in stored] == list(fresh)
    assert make_timm_models.FILE.read_text(encoding="utf-8") == made


@pytest.mark.parity
def test_the_first_tag_is_timms_default() -> None:
    timm = pytest.importorskip("timm")
    first: dict[str, str] = {}
    for row in rows("timm_models.tsv"):
        first.setdefault(model_of(row["name"]), row["name"])
    for model, name in first.items():
        assert name == f"{model}.{timm.get_pretrained_cfg(model).tag}"


@pytest.mark.parity
@pytest.mark.parametrize(
    "model", ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14", "resnet50", "resnet101"]
)
def test_weights_of_torchvision_are_torchvisions(model: str) -> None:
    models = pytest.importorskip("torchvision").models
    weights = models.get_model_weights(model)
    entries = {name: entry for name, entry in catalogue().items() if model_of(name) == model}
    assert {f"{model}.{found.name.lower()}" for found in weights} == set(entries)
    assert find(model).address == weights.DEFAULT.url
    for found in weights:
        entry = entries[f"{model}.{found.name.lower()}"]
        assert entry.address == found.url
        assert entry.parameters == found.meta["num_params"]
        assert f"-{entry.sha256}." in found.url
        assert ("license" in found.meta) == (entry.licence == "cc-by-nc-4.0")


@pytest.mark.parity
def test_weights_of_pytorch_pretrained_vit_are_that_packages() -> None:
    package = pytest.importorskip("pytorch_pretrained_vit")
    configs = package.configs.PRETRAINED_MODELS
    expected = {name: values["url"] for name, values in configs.items() if values["url"]}
    entries = [entry for entry in catalogue().values() if entry.format == "lukemelas"]
    assert {entry.name: entry.address for entry in entries} == expected
    for entry in entries:
        with torch.device("meta"):
            model = package.ViT(entry.name)
        assert entry.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parity
def test_parameters_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    clip = transformers.CLIPVisionConfig(patch_size=32, projection_dim=512)
    dinov2 = transformers.Dinov2Config(image_size=518, patch_size=14, num_labels=1000)
    with torch.device("meta"):
        models = {
            "google/vit-base-patch16-224": transformers.ViTForImageClassification(
                transformers.ViTConfig(num_labels=1000)
            ),
            "google/vit-base-patch16-224-in21k": transformers.ViTModel(transformers.ViTConfig()),
            "facebook/deit-base-distilled-patch16-224": (
                transformers.DeiTForImageClassificationWithTeacher(
                    transformers.DeiTConfig(num_labels=1000)
                )
            ),
            "facebook/dinov2-base-imagenet1k-1-layer": transformers.Dinov2ForImageClassification(
                dinov2
            ),
            "openai/clip-vit-base-patch32": transformers.CLIPVisionModelWithProjection(clip),
        }
    for name, model in models.items():
        kept = [p.numel() for key, p in model.named_parameters() if not key.endswith("mask_token")]
        assert find(name).parameters == sum(kept), name


@pytest.mark.parity
def test_labels_are_torchvisions() -> None:
    meta = pytest.importorskip("torchvision.models._meta")
    text = (TABLES / "imagenet_labels.txt").read_text(encoding="utf-8")
    assert text.splitlines() == meta._IMAGENET_CATEGORIES
    assert text.endswith("\n")
