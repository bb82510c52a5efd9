"""What `convert` finds out, what it assumes and says, what it refuses; and the way back."""

from __future__ import annotations

import contextlib
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from minivit import Preprocess, VisionTransformer, ViTConfig, load_model, save_model
from tests.references.seeded import seeded, seeded_weights
from tests.weights_convert import test_formats
from tests.weights_convert.test_formats import stored, write
from weights_convert import ConvertError, convert, export
from weights_convert.conversion import read_labels

PHOTO = {"mode": "squash", "filter": "bilinear", "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}


def make_model(**options: Any) -> VisionTransformer:
    labels = options.pop("labels", None)
    name = options.pop("name", "vit_debug_patch8_32")
    config = ViTConfig.from_name(name, **options)
    photo = PHOTO if config.in_channels == 3 else PHOTO | {"mean": (0.4,), "std": (0.1,)}
    preprocess = Preprocess(image_size=config.image_size, **photo)
    model = VisionTransformer(config, preprocess=preprocess, labels=labels).eval()
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(seeded_weights(shapes, 1))
    return model


def weights(**options: Any) -> dict[str, Tensor]:
    return dict(make_model(**options).state_dict())


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path)
    return path


# ---- what shapes do not tell ------------------------------


def test_heads_by_the_width_are_an_assumption_that_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights(dim=128, num_heads=2, hidden_dim=64))
    converted = convert(path)
    assert converted.model.config.num_heads == 2
    assert any("2 heads of 64 channels, by the width 128" in note for note in converted.notes)
    assert any("no model of timm's" in note for note in converted.notes)
    assert convert(path, num_heads=8).model.config.num_heads == 8


def test_a_width_that_is_no_multiple_of_64_asks(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights())
    with pytest.raises(ConvertError, match=r"mine.pth: .*width 32 .*give --num-heads"):
        convert(path)
    with pytest.raises(ConvertError, match="num_heads is 5, which does not divide dim 32"):
        convert(path, num_heads=5)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("vit_small_patch32_224.pth", None),
        ("vit_small_patch32_224.augreg_in21k_ft_in1k.safetensors", None),
        ("vit_small_patch32_224-8f5de3a1.pth", None),  # with the start of its checksum
        ("model.bin", "vit_small_patch32_224"),
        ("wrong.pth", "vit_small_patch32_224.augreg_in21k_ft_in1k"),
    ],
)
def test_timms_names_bring_timms_settings(file: str, name: str | None, tmp_path: Path) -> None:
    tensors = weights(name="vit_small_patch32_224", depth=1)
    path = tmp_path / file
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    converted = convert(path, name=name)
    assert converted.model.config.num_heads == 6
    preprocess = converted.model.preprocess
    assert (preprocess.crop_fraction, preprocess.filter) == (0.9, "bicubic")
    assert preprocess.mean == (0.5, 0.5, 0.5) and preprocess.mode == "crop"
    assert converted.model.labels is not None and converted.model.labels[207] == "golden retriever"
    assert not any("no model of timm's" in note for note in converted.notes)


def test_epsilon_and_activation_of_the_sources(tmp_path: Path) -> None:
    """A wrong epsilon changes logits by less than any tolerance: it is asserted, not compared."""
    for case, activation, epsilon in (
        ("dino", "gelu", 1e-6),
        ("dinov2", "gelu", 1e-6),
        ("dinov2_swiglu", "swiglu", 1e-6),
        ("jax", "gelu_tanh", 1e-6),
        ("lukemelas", "gelu", 1e-6),
        ("torchvision", "gelu", 1e-6),
        ("hf_vit", "gelu", 1e-12),
        ("hf_deit_teacher", "gelu_tanh", 1e-12),
        ("hf_clip", "quick_gelu", 1e-5),
        ("open_clip", "gelu", 1e-5),
    ):
        folder = tmp_path / case
        folder.mkdir()
        reference = stored(case)
        config = convert(
            write(case, reference, folder), **test_formats.options(case, reference)
        ).model.config
        assert (config.activation, config.layer_norm_eps) == (activation, epsilon), case


def test_the_activation_of_clip_goes_by_its_name(tmp_path: Path) -> None:
    for name, activation in (
        ("ViT-B-32-openai.pth", "quick_gelu"),
        ("ViT-B-32-quickgelu.pth", "quick_gelu"),
        ("ViT-B-32-laion2b.pth", "gelu"),
    ):
        path = saved(tmp_path / name, stored("open_clip").weights)
        converted = convert(path, num_heads=2, image_size=(32, 48))
        assert converted.model.config.activation == activation
        assert any(activation in note and "by the name" in note for note in converted.notes)


def test_open_clips_config_tells(tmp_path: Path) -> None:
    settings = {
        "model_cfg": {"quick_gelu": True, "vision_cfg": {"head_width": 16}},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    reference = stored("open_clip_quick")
    path = saved(tmp_path / "open_clip_pytorch_model.bin", reference.weights)
    model = convert(path, image_size=(32, 48)).model
    assert model.preprocess.mean == (0.5, 0.5, 0.5) and model.config.num_heads == 2
    with torch.no_grad():
        logits = model(reference.pictures())
    torch.testing.assert_close(logits, reference.tensors["output"], atol=1e-4, rtol=0)


NUMBERS = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}


def test_openais_own_numbers_mean_the_quick_gelu(tmp_path: Path) -> None:
    """Whatever the file is called; a config that says otherwise is a contradiction."""
    path = saved(tmp_path / "ViT-B-32.pt", stored("open_clip").weights | NUMBERS)
    options: dict[str, Any] = {"num_heads": 2, "image_size": (32, 48)}
    converted = convert(path, **options)
    assert converted.model.config.activation == "quick_gelu"
    assert any("input_resolution" in note for note in converted.notes)
    assert not any("by the name" in note for note in converted.notes)
    assert convert(path, activation="gelu", **options).model.config.activation == "gelu"
    settings: dict[str, Any] = {"model_cfg": {"vision_cfg": {"head_width": 16}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConvertError, match=r"the file is OpenAI's.*says gelu: give --activation"):
        convert(path, image_size=(32, 48))


def test_open_clips_other_towers_by_its_config(tmp_path: Path) -> None:
    """Pooling, its norm, the epsilon, LayerScale; what minivit does not run is named."""
    reference = stored("open_clip")
    for index in (0, 1):
        for part in ("ls_1", "ls_2"):
            name = f"visual.transformer.resblocks.{index}.{part}.gamma"
            reference.weights[name] = torch.full((32,), 0.5)
    path = saved(tmp_path / "open_clip_pytorch_model.bin", reference.weights)

    def with_vision(photos: dict[str, Any] | None = None, **vision: Any) -> VisionTransformer:
        settings = {"model_cfg": {"vision_cfg": {"head_width": 16} | vision}}
        settings["preprocess_cfg"] = photos or {}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
        model = convert(path, image_size=(32, 48)).model
        assert isinstance(model, VisionTransformer)
        return model

    config = with_vision(norm_kwargs={"eps": 1e-6}, act_kwargs={"approximate": "tanh"}).config
    assert (config.pooling, config.layer_norm_eps, config.fc_norm) == ("cls", 1e-6, False)
    assert config.activation == "gelu_tanh" and config.layer_scale is not None
    pictures = reference.pictures()
    model = with_vision(pool_type="avg")
    pooled = model.encode(pictures)[:, 1:].mean(1)
    torch.testing.assert_close(model(pictures), model.head(pooled), atol=1e-6, rtol=0)
    after = with_vision(pool_type="avg", final_ln_after_pool=True)
    pooled = after.fc_norm(after.encode(pictures)[:, 1:].mean(1))
    torch.testing.assert_close(after(pictures), after.head(pooled), atol=1e-6, rtol=0)
    for vision, message in (
        ({"global_average_pool": True}, "global_average_pool"),
        ({"pool_type": "none"}, "pool_type 'none'"),
        ({"photos": {"resize_mode": "longest"}}, "resize_mode 'longest' pads photos"),
    ):
        with pytest.raises(ConvertError, match=message):
            with_vision(**vision)


def test_grey_models_take_grey_photos_and_other_counts_are_refused(tmp_path: Path) -> None:
    for channels in (2, 4, 6):
        path = saved(tmp_path / "mine.pth", weights(in_channels=channels))
        with pytest.raises(ConvertError, match=f"pictures of {channels} channels; photos have 3"):
            convert(path, num_heads=2)
    path = saved(tmp_path / "mine.pth", weights(in_channels=1))
    converted = convert(path, tmp_path / "grey.safetensors", num_heads=2)
    assert converted.model.preprocess.mean == (0.5,)
    photo = Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40))
    for model in (converted.model, load_model(tmp_path / "grey.safetensors")):
        for mode in ("L", "RGB", "RGBA"):
            x = model.preprocess(photo.convert(mode))
            assert x.shape == (1, 32, 32) and model(x[None]).shape == (1, 10)
    dino = {k: v for k, v in weights(in_channels=1, num_classes=0).items() if "head" not in k}
    converted = convert(saved(tmp_path / "dino_mine.pth", dino), num_heads=2)
    assert converted.model.preprocess.mean == (0.449,)
    assert any("averages of the three colours" in note for note in converted.notes)


def test_classes_without_names_are_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights(num_classes=3))
    note = "the 3 classes have no names: predictions will be their numbers; give the names with"
    assert any(note in each for each in convert(path, num_heads=2).notes)
    named = convert(path, num_heads=2, labels=("a", "b", "c"))
    assert not any("no names" in each for each in named.notes)
    embedding = saved(tmp_path / "clip.pth", stored("open_clip").weights)
    converted = convert(embedding, num_heads=2, image_size=(32, 48))
    assert not any("no names" in each for each in converted.notes)


def test_labels_from_a_folder_a_class_are_in_torchvisions_order(tmp_path: Path) -> None:
    for name in ("2", "1", "11", "10"):
        (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / "readme.txt").write_text("no class")
    path = saved(tmp_path / "mine.pth", weights(num_classes=4))
    converted = convert(path, num_heads=2, labels=tmp_path / "train")
    assert converted.model.labels == ("1", "10", "11", "2")


def test_a_grid_that_is_not_square_asks(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights(image_size=(32, 48)))
    with pytest.raises(ConvertError, match="makes 4 x 4 patches, there are 25"):
        convert(path, num_heads=2, image_size=(32, 32))
    assert convert(path, num_heads=2, image_size=(32, 48)).model.grid_size == (4, 6)
    path = saved(tmp_path / "other.pth", weights(image_size=(32, 56)))
    with pytest.raises(ConvertError, match="29 position embeddings are no square grid: give --im"):
        convert(path, num_heads=2)


def test_two_files_make_a_linear_classifier(tmp_path: Path) -> None:
    reference = stored("dinov2_linear")
    backbone = {
        name.removeprefix("backbone."): tensor
        for name, tensor in reference.weights.items()
        if name.startswith("backbone.")
    }
    head = {part: reference.weights[f"linear_head.{part}"] for part in ("weight", "bias")}
    path = saved(tmp_path / "dinov2_small_pretrain.pth", backbone)
    model = convert(path, head=saved(tmp_path / "head.pth", head), num_heads=2).model
    with torch.no_grad():
        logits = model(reference.pictures())
    torch.testing.assert_close(logits, reference.tensors["output"], atol=1e-4, rtol=0)
    with pytest.raises(ConvertError, match=r"not a linear head: \d+ tensors named weight"):
        convert(path, head=path, num_heads=2)
    head["weight"] = torch.zeros(10, 70)
    with pytest.raises(ConvertError, match="the linear head takes 70 channels, tokens have 32"):
        convert(path, head=saved(tmp_path / "head.pth", head), num_heads=2)


def test_dinos_training_checkpoint(tmp_path: Path) -> None:
    """Teacher and student, each in a wrapper, with the head for training and the settings."""
    reference = stored("dino")

    def network(prefix: str, factor: float) -> dict[str, Tensor]:
        backbone = {f"{prefix}backbone.{k}": factor * v for k, v in reference.weights.items()}
        return backbone | {f"{prefix}head.mlp.0.weight": torch.ones(2, 2)}

    checkpoint = {
        "student": network("module.", 2.0),
        "teacher": network("", 1.0),
        "optimizer": {},
        "args": Namespace(arch="vit_small"),
        "epoch": 3,
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    converted = convert(tmp_path / "checkpoint.pth", num_heads=2)
    assert converted.format == "dino" and "took the 'teacher' network" in converted.notes[0]
    with torch.no_grad():
        tokens = converted.model.encode(reference.pictures())
    torch.testing.assert_close(tokens[:, 0], reference.tensors["output"], atol=1e-4, rtol=0)
    del checkpoint["teacher"]
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    assert "'student'" in convert(tmp_path / "checkpoint.pth", num_heads=2).notes[0]


def test_pre_logits_are_left_out_where_their_package_does(tmp_path: Path) -> None:
    reference = stored("lukemelas")
    extra = {"pre_logits.weight": torch.ones(64, 64), "pre_logits.bias": torch.ones(64)}
    path = saved(tmp_path / "B_16.pth", reference.weights | extra)
    converted = convert(path, num_heads=2, image_size=(32, 48))
    assert any("left out pre_logits" in note for note in converted.notes)
    with torch.no_grad():
        logits = converted.model(reference.pictures())
    torch.testing.assert_close(logits, reference.tensors["output"], atol=1e-4, rtol=0)


# ---- labels ------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nowl\n",
        "cat\r\ndog\r\nowl",
        '["cat", "dog", "owl"]',
        '{"1": "dog", "0": "cat", "2": "owl"}',
    ],
)
def test_labels_from_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(text)
    path = saved(tmp_path / "mine.pth", weights(num_classes=3))
    model = convert(path, labels=tmp_path / "labels.txt", num_heads=2).model
    assert model.labels == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog", "2 labels for 3 classes"),
        (b'{"0": "cat", "2": "owl"}', "no name for class 1"),
        (b'["cat"', "begins as JSON and is none"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_labels_that_do_not_fit(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    path = saved(tmp_path / "mine.pth", weights(num_classes=3))
    with pytest.raises(ConvertError, match=message):
        convert(path, labels=tmp_path / "labels.txt", num_heads=2)


def test_labels_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file; check --labels"):
        read_labels(tmp_path / "nowhere.txt")


def test_names_of_a_hub_folder(tmp_path: Path) -> None:
    reference = stored("hf_vit")
    path = write("hf_vit", reference, tmp_path)
    assert convert(path).model.labels is None  # LABEL_0 and so on are no names
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["id2label"] = {str(index): f"breed {index}" for index in range(10)}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert convert(path).model.labels == tuple(f"breed {index}" for index in range(10))


# ---- what is refused: nothing is written ------------------------------


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    good = weights()

    def refused(tensors: dict[str, Tensor], message: str, **options: Any) -> None:
        path = saved(tmp_path / "mine.pth", tensors)
        with pytest.raises(ConvertError, match=message):
            convert(path, output, **({"num_heads": 2} | options))
        assert not output.exists()

    refused(
        {k: v for k, v in good.items() if ".norm1." not in k},
        r"4 missing \(blocks.0.norm1.bias, blocks.0.norm1.weight, blocks.1.norm1.bias, …\)",
    )
    refused(
        good | {"attn_pool.latent": torch.ones(3), "extra": torch.ones(1)},
        r"2 tensors that do not belong to a model minivit can run \(attn_pool.latent, extra\)",
    )
    refused(
        good | {"blocks.1.mlp.fc2.bias": torch.ones(31)},
        r"1 of a wrong shape \(blocks.1.mlp.fc2.bias \(31,\) instead of \(32,\)\)",
    )
    refused({"patch_embed.proj.weight": torch.ones(32, 3, 8, 8)}, "not a ViT, it has no blocks.0")
    refused(good | {"pos_embed": torch.ones(1, 12, 32)}, "12 position embeddings are no square")
    refused({"a": torch.ones(1), "b": torch.ones(1)}, "a format that minivit does not know: 2 ten")
    refused(good, r"unknown format 'flax': choose from catr, resnet, jax", format="flax")
    refused(good, "32 tensors that do not belong .* give --format", format="open_clip")
    clip = {k: v for k, v in stored("open_clip").weights.items() if k != "visual.class_embedding"}
    refused(clip, "not open_clip, it has no 'cls_token'", image_size=(32, 48))
    refused(
        {k: v.long() if k == "norm.bias" else v for k, v in good.items()},
        "norm.bias holds int64 values, weights are float16",
    )


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in stored("lukemelas").weights.items()}
    name = next(name for name in tensors if name.startswith("transformer.blocks.1.pwff.fc1.w"))
    tensors[name][0, 0] = float("nan")
    path, output = saved(tmp_path / "B_16.pth", tensors), tmp_path / "out.safetensors"
    with pytest.raises(ConvertError, match=r"blocks\.1\.mlp\.fc1\.weight holds 1 NaN or infinite"):
        convert(path, output, num_heads=2, image_size=(32, 48))
    assert not output.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"layer_norm_eps": "x"},
        {"id2label": 5},
        {"id2label": [1]},
        {"num_hidden_layers": "many"},
        {"hidden_act": ["gelu"]},
    ],
)
def test_a_config_that_lies_is_refused_in_one_line(
    tmp_path: Path, values: dict[str, object]
) -> None:
    save_file(dict(stored("hf_vit").weights), tmp_path / "model.safetensors")
    config = {"model_type": "vit", "num_attention_heads": 2, "image_size": [32, 48]}
    (tmp_path / "config.json").write_text(json.dumps(config | values))
    with contextlib.suppress(ConvertError):  # or a value that nothing needs
        convert(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ConvertError, match="not JSON"):
        convert(tmp_path)


def test_a_query_without_its_key(tmp_path: Path) -> None:
    tensors = stored("lukemelas").weights
    del tensors["transformer.blocks.1.attn.proj_k.weight"]
    path = saved(tmp_path / "B_16.pth", tensors)
    with pytest.raises(ConvertError, match=r"blocks\.1\.attn\.qkv\.weight is made .* q, v"):
        convert(path, num_heads=2, image_size=(32, 48))


def test_a_minivit_file_is_told_so(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path / "mine.safetensors")
    with pytest.raises(ConvertError, match="already a minivit checkpoint"):
        convert(tmp_path / "mine.safetensors")


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(weights(), path)
    before = path.read_bytes()
    with pytest.raises(ConvertError, match="is the input itself"):
        convert(path, path, num_heads=2)
    assert path.read_bytes() == before


def test_half_precision_stays_in_the_file_and_computes_in_single(tmp_path: Path) -> None:
    path = saved(tmp_path / "half.pth", {k: v.half() for k, v in weights().items()})
    converted = convert(path, tmp_path / "out.safetensors", num_heads=2)
    assert load_file(tmp_path / "out.safetensors")["norm.weight"].dtype == torch.float16
    assert converted.model.norm.weight.dtype == torch.float32
    assert converted.model(seeded("x", (1, 3, 32, 32), 0)).dtype == torch.float32


def test_converted_weights_can_be_trained(tmp_path: Path) -> None:
    model = convert(saved(tmp_path / "mine.pth", weights()), num_heads=2).model
    assert not model.training
    model(seeded("x", (1, 3, 32, 32), 0)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# ---- the way back ------------------------------

ROUND_TRIPS: list[dict[str, Any]] = [
    {},
    {"labels": [f"breed {index}" for index in range(10)], "image_size": (32, 48)},
    {"distillation_token": True, "activation": "quick_gelu", "layer_norm_eps": 1e-5},
    {"pooling": "mean", "fc_norm": True, "layer_scale": 0.1},
    {"num_register_tokens": 3, "pos_embed_prefix": False, "num_classes": 0, "qkv_bias": False},
    {"pooling": "mean", "final_norm": False, "in_channels": 1},
    {"norm_pre": True, "patch_bias": False, "head_bias": False, "activation": "swiglu"},
]


@pytest.mark.parametrize("options", ROUND_TRIPS)
@pytest.mark.parametrize("from_file", [True, False])
def test_there_and_back_is_bit_exact(
    options: dict[str, Any], from_file: bool, tmp_path: Path
) -> None:
    model = make_model(**options)
    source: Any = model
    if from_file:
        source = tmp_path / "mine.safetensors"
        save_model(model, source)
    exported = export(source, tmp_path / "timm.safetensors")
    assert load_file(tmp_path / "timm.safetensors").keys() == exported.keys()
    convert(tmp_path / "timm.safetensors", tmp_path / "back.safetensors")
    back = load_model(tmp_path / "back.safetensors")
    assert back.config == model.config
    assert back.preprocess == model.preprocess and back.labels == model.labels
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    config = model.config
    pictures = seeded("pictures", (2, config.in_channels, *config.image_size), 4)
    with torch.no_grad():
        assert torch.equal(back(pictures), model(pictures))


def test_exported_to_pth_it_is_a_plain_state_dict(tmp_path: Path) -> None:
    model = make_model()
    export(model, tmp_path / "timm.pth")
    found = torch.load(tmp_path / "timm.pth", weights_only=True)
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())
    back = convert(tmp_path / "timm.pth", num_heads=2).model
    assert torch.equal(back.state_dict()["head.weight"], model.state_dict()["head.weight"])


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "t.safetensors", metadata={"minivit_export": '{"config": {}}'})
    with pytest.raises(ConvertError, match="the description that minivit left is damaged"):
        convert(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"pooling": "cls_and_mean"}, "head on class token and patch mean"),
        ({"representation_dim": 8}, "tanh layer"),
        ({"pos_embed": "sine"}, "sine positions"),
    ],
)
def test_what_timm_cannot_be_is_not_exported(
    options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(ConvertError, match=what):
        export(make_model(**options), tmp_path / "timm.pth")
    assert not list(tmp_path.iterdir())
