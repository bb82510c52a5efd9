"""Where the model is in a file: sets of weights, prefixes, and what stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.references.seeded import seeded
from tests.weights_convert.test_conversion import make_model, saved, weights
from weights_convert import ConvertError, convert
from weights_convert.reading import read
from weights_convert.towers import TowerError, find_model

MODEL = {"patch_embed.proj.weight": torch.ones(4, 3, 2, 2), "norm.weight": torch.ones(4)}


def under(prefix: str, tensors: dict[str, Tensor] = MODEL) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def find(content: dict[str, Any], **options: Any) -> Any:
    return find_model(content, which=options.get("which"), prefix=options.get("prefix"))


# ---- several sets of weights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "taken", "reason"),
    [
        (("state_dict", "state_dict_ema"), "state_dict_ema", "as timm's loader does"),
        (("model", "model_ema"), "model_ema", "as timm's loader does"),
        (("model_ema", "state_dict_ema"), "state_dict_ema", "as timm's loader does"),
        (("net", "ema_net"), "ema_net", "as timm's loader does"),
        (("student", "teacher"), "teacher", "DINO publishes"),
        (("model", "state_dict"), "state_dict", "the first by its name"),
    ],
)
def test_of_several_sets_one_is_taken_and_the_others_are_named(
    names: tuple[str, str], taken: str, reason: str
) -> None:
    content = {name: MODEL | {"norm.weight": torch.full((4,), 1.0 * i)} for i, name in
               enumerate(names)}  # fmt: skip
    model = find({"epoch": 3} | content)
    other = next(name for name in names if name != taken)
    assert model.container == taken and len(model.notes) == 1
    assert f"took the {taken!r} network" in model.notes[0] and repr(other) in model.notes[0]
    assert reason in model.notes[0] and "--which" in model.notes[0]
    assert torch.equal(model.tensors["norm.weight"], content[taken]["norm.weight"])
    model = find(content, which=other)
    assert torch.equal(model.tensors["norm.weight"], content[other]["norm.weight"])
    assert model.notes == [f"took {other!r}, as --which says"]


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema", "swa_model"])
def test_an_average_alone_is_found(name: str) -> None:
    model = find({"epoch": 3, name: MODEL})
    assert model.container == name and f"took the {name!r} network" in model.notes[0]


def test_weights_two_dictionaries_deep() -> None:
    assert find({"checkpoint": {"model": MODEL, "step": 3}}).container == "checkpoint.model"


def test_an_optimizers_state_is_no_set_of_weights() -> None:
    assert find({"model": MODEL, "optimizer": {"exp_avg": MODEL}}).notes == []


def test_a_set_that_is_not_there_is_refused_with_the_names_of_those_that_are() -> None:
    with pytest.raises(TowerError, match=r"--which ema: no such set .* holds 'model', 'net'"):
        find({"model": MODEL, "net": MODEL}, which="ema")


# ---- tensors beside the weights ------------------------------------------------------------------


@pytest.mark.parametrize(
    "beside",
    [
        {"loss": torch.tensor(0.4)},
        {"rng_state": torch.get_rng_state()},
        {"class_weights": torch.ones(5)},
        {"confusion": torch.ones(5, 5)},
        {"epoch": torch.tensor(3), "optimizer_state_dict": {"state": {0: torch.ones(2)}}},
    ],
)
@pytest.mark.parametrize("container", ["model_state_dict", "model", "weights"])
def test_the_dictionary_with_the_model_is_found_whatever_stands_beside(
    beside: dict[str, Any], container: str
) -> None:
    model = find(beside | {container: MODEL})
    assert model.tensors.keys() == MODEL.keys() and model.container == container


def test_counters_among_the_weights_are_left_out_and_named() -> None:
    model = find(MODEL | {"epoch": torch.tensor(3), "rng_state": torch.get_rng_state()})
    assert model.tensors.keys() == MODEL.keys()
    assert model.notes == ["left out epoch, rng_state (2 in all), no weights of the model"]
    assert "logit_scale" in find(MODEL | {"logit_scale": torch.tensor(2.0)}).tensors


# ---- prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["model.", "net.", "vit.", "encoder.", "student.", "backbone.", "visual.trunk.", "a.b.c."],
)
def test_the_common_prefix_is_taken_off_and_said(prefix: str) -> None:
    model = find({"state_dict": under(prefix)})
    assert model.tensors.keys() == MODEL.keys() and model.prefix == prefix
    assert model.notes == [f"took the prefix {prefix!r} off the names"]


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."],
)
def test_what_torch_wraps_a_model_in_is_no_prefix_of_a_script(prefix: str) -> None:
    model = find(under(prefix))
    assert model.tensors.keys() == MODEL.keys() and model.prefix == ""
    assert model.notes == ["took torch's wrappers (module., _orig_mod.) off the names"]
    assert find(MODEL).notes == []


def test_compiled_parts_inside_a_name() -> None:
    names = {"model._orig_mod.patch_embed.proj.weight": 4, "model.norm._orig_mod.weight": 4}
    model = find({name: torch.ones(size, 3, 2, 2) for name, size in names.items()})
    assert model.tensors.keys() == MODEL.keys() and model.prefix == "model."


def test_several_models_are_refused_until_one_is_chosen() -> None:
    content = under("student.") | under("teacher.", {k: v + 1 for k, v in MODEL.items()})
    with pytest.raises(TowerError, match=r"2 models.*'student\.', 'teacher\.'.*--prefix"):
        find(content)
    for wanted in ("teacher", "teacher."):
        model = find(content, prefix=wanted)
        assert torch.equal(model.tensors["norm.weight"], torch.full((4,), 2.0))
        assert "left out student." in model.notes[1] and "as --prefix says" in model.notes[1]
    with pytest.raises(TowerError, match=r"--prefix pupil\.: no model .* there is 'student\.'"):
        find(content, prefix="pupil")


def test_layouts_keep_their_own_prefixes() -> None:
    vit = {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(4, 3, 2, 2)}
    vit["classifier.weight"] = torch.ones(5, 4)
    assert find(vit).tensors.keys() == vit.keys()
    model = find(under("model.", vit))
    assert model.tensors.keys() == vit.keys() and model.prefix == "model."
    clip = {"visual.class_embedding": torch.ones(4), "transformer.x.weight": torch.ones(4, 4)}
    assert find(under("module.", clip)).tensors.keys() == clip.keys()
    dino = under("backbone.") | {"head.mlp.0.weight": torch.ones(4, 4)}
    assert find(dino).tensors.keys() == dino.keys()


def test_backbone_alone_is_not_dino(tmp_path: Path) -> None:
    """Its photos are an assumption that is said, not DINO's in silence."""
    path = saved(tmp_path / "best.pth", under("backbone.", weights()))
    converted = convert(path, num_heads=2)
    assert converted.format == "timm" and converted.model.preprocess.mean == (0.5, 0.5, 0.5)
    notes = "\n".join(converted.notes)
    assert "took the prefix 'backbone.'" in notes and "mean 0.5/0.5/0.5" in notes
    assert "the script with the prefix 'backbone.' may have prepared them otherwise" in notes


def test_open_clip_around_timms_tower(tmp_path: Path) -> None:
    """The projection is the head, the text tower is left out."""
    ours = make_model(num_classes=0)
    projection = seeded("projection", (12, 32), 3)
    content = under("module.visual.trunk.", dict(ours.state_dict())) | {
        "module.visual.head.proj.weight": projection,
        "module.logit_scale": torch.tensor(1.0),
        "module.text.transformer.0.weight": torch.ones(8, 8),
    }
    path = saved(tmp_path / "clip.pth", content)
    converted = convert(path, num_heads=2)
    images = seeded("images", (2, 3, 32, 32), 5)
    with torch.no_grad():
        expected = ours(images) @ projection.T
        torch.testing.assert_close(converted.model(images), expected, atol=1e-5, rtol=0)
    assert "text tower" in "\n".join(converted.notes)


# ---- adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.blocks.0.attn.qkv.lora_A.weight",
        "blocks.0.attn.qkv.lora_B.default.weight",
        "blocks.0.attn.qkv.base_layer.weight",
    ],
)
def test_an_adapter_is_named(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "adapter.bin", {name: torch.ones(4, 4)})
    with pytest.raises(ConvertError, match=r"a PEFT adapter .*merge_and_unload"):
        convert(path)


def test_an_adapters_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ConvertError, match="a PEFT adapter, not a model; merge"):
        read(tmp_path)


def test_a_merged_adapters_prefix_is_taken_off() -> None:
    assert find(under("base_model.model.")).prefix == "base_model.model."
