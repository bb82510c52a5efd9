"""The classes of transformers that minivit runs, and what each makes of the tokens of its tower.

Many classes share a tower and differ in what they read off it: the class token, the mean of the
patches, both; after the last norm or before it. config.json names the class under `architectures`,
and its model type says which defaults hold where it is silent. A class that is not in the table is
refused by its name. The rules are those of transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minivit.config import Pooling
from weights_convert.reading import ConvertError, Source

# First part of the names of the tensors that stand beside a tower, without the tower's own prefix.
PARTS = (
    "pooler",
    "classifier",
    "cls_classifier",
    "distillation_classifier",
    "visual_projection",
    "decoder",
    "head",
    "text_model",
    "text_projection",
    "logit_scale",
    "logit_bias",
)
_TEXT = ("text_model", "text_projection", "logit_scale", "logit_bias")


@dataclass(frozen=True)
class Rule:
    """What a class makes of the tokens.

    Attributes:
        head: Parts between the pooled tokens and the output; a file may lack them.
        pooling: As in `ViTConfig`.
        final_norm: As in `ViTConfig`.
        unused: Parts that the output does not need: they are left out.
        note: Sentence for the user, where minivit's output is not the class's.
    """

    head: tuple[str, ...] = ()
    pooling: Pooling = "cls"
    final_norm: bool = True
    unused: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Family:
    """The classes around one kind of tower.

    Attributes:
        classes: The rules by the classes' names; first the one of a tower without a head.
        hidden_act: Activation where config.json names none.
        layer_norm_eps: Epsilon where config.json names none.
        processor: Image processor that transformers takes for it.
        photos: Settings of the published models' processor; a size of None is the model's.
    """

    classes: Mapping[str, Rule]
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    processor: str = "ViT"
    photos: Mapping[str, Any] = field(default_factory=dict)


_CLASS_TOKEN = Rule(("classifier",), unused=("pooler",))
_MASKED = "; the output is the class token's feature"
_NO_POOLING = "the class gives tokens alone; the output here is the mean of the patch tokens"


def _vit(stem: str) -> dict[str, Rule]:
    return {
        f"{stem}Model": Rule(("pooler",)),
        f"{stem}ForImageClassification": _CLASS_TOKEN,
        f"{stem}ForMaskedImageModeling": Rule(
            unused=("decoder",), note=f"left out the painting of hidden patches{_MASKED}"
        ),
    }


def _dinov2(stem: str) -> dict[str, Rule]:
    return {
        f"{stem}Model": Rule(),
        f"{stem}ForImageClassification": Rule(("classifier",), "cls_and_mean"),
        f"{stem}Backbone": Rule(
            note="left out the maps of features; the output is the class token"
        ),
    }


def _two_towers(stem: str) -> dict[str, Rule]:
    return {
        f"{stem}VisionModel": Rule(),
        f"{stem}Model": Rule(("visual_projection",), unused=_TEXT),
    }


def _clip(stem: str) -> dict[str, Rule]:
    return {
        f"{stem}VisionModel": Rule(),
        f"{stem}VisionModelWithProjection": Rule(("visual_projection",)),
        f"{stem}Model": Rule(("visual_projection",), unused=_TEXT),
        # the classifier sees the patches as the last block leaves them
        f"{stem}ForImageClassification": Rule(("classifier",), "mean", final_norm=False),
    }


_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_MODELS_SIZE = {"height": None, "width": None}
_CLIP_PHOTOS = {
    "size": {"shortest_edge": None},
    "crop_size": {"height": None, "width": None},
}
_DINOV2_PHOTOS = {"size": {"shortest_edge": 256}, "crop_size": 224} | _IMAGENET

FAMILIES: dict[str, Family] = {
    "vit": Family(_vit("ViT"), photos={"size": _MODELS_SIZE}),
    "deit": Family(
        _vit("DeiT")
        | {
            "DeiTForImageClassificationWithTeacher": Rule(
                ("cls_classifier", "distillation_classifier")
            )
        },
        processor="DeiT",
        photos={"size": 256, "crop_size": 224} | _IMAGENET,
    ),
    "vit_msn": Family(
        {"ViTMSNModel": Rule(), "ViTMSNForImageClassification": _CLASS_TOKEN},
        layer_norm_eps=1e-6,
        photos={"size": _MODELS_SIZE} | _IMAGENET,
    ),
    "vit_mae": Family(
        {
            "ViTMAEModel": Rule(
                note="no patch is hidden; transformers' class hides a random part of them"
            ),
            "ViTMAEForPreTraining": Rule(
                unused=("decoder",),
                note=f"no patch is hidden, and left out the painting of hidden ones{_MASKED}",
            ),
        },
        photos={"size": _MODELS_SIZE} | _IMAGENET,
    ),
    "ijepa": Family(
        {
            "IJepaModel": Rule(pooling="mean", unused=("pooler",), note=_NO_POOLING),
            "IJepaForImageClassification": Rule(("classifier",), "mean", unused=("pooler",)),
        },
        photos={"size": _MODELS_SIZE} | _IMAGENET,
    ),
    "dinov2": Family(
        _dinov2("Dinov2"), layer_norm_eps=1e-6, processor="Bit", photos=_DINOV2_PHOTOS
    ),
    "dinov2_with_registers": Family(
        _dinov2("Dinov2WithRegisters"),
        layer_norm_eps=1e-6,
        processor="Bit",
        photos=_DINOV2_PHOTOS,
    ),
    "siglip": Family(
        {
            "SiglipVisionModel": Rule(pooling="mean", note=_NO_POOLING),
            "SiglipModel": Rule(pooling="mean", unused=_TEXT, note=_NO_POOLING),
            "SiglipForImageClassification": Rule(("classifier",), "mean", unused=("head",)),
        },
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        processor="Siglip",
        photos={"size": _MODELS_SIZE},
    ),
} | {
    kind: Family(classes, "quick_gelu", 1e-5, processor, photos)
    for kind, classes, processor, photos in (
        ("clip", _clip("CLIP"), "CLIP", _CLIP_PHOTOS),
        ("metaclip_2", _clip("MetaClip2"), "CLIP", _CLIP_PHOTOS),
        ("chinese_clip", _two_towers("ChineseCLIP"), "ChineseCLIP", _CLIP_PHOTOS),
        ("altclip", _two_towers("AltCLIP"), "CLIP", _CLIP_PHOTOS),
        ("clipseg", _two_towers("CLIPSeg"), "ViT", {"size": _MODELS_SIZE} | _IMAGENET),
    )
}


def family_of(source: Source) -> str:
    """The kind of tower, by config.json or else by the names of the tensors.

    Raises:
        ConvertError: Another kind than those of `FAMILIES`.
    """
    stated = str(source.config.get("model_type") or "").removesuffix("_vision_model")
    if stated in FAMILIES:
        return stated
    if stated:
        name = class_named(source) or stated
        raise ConvertError(
            f"{source.path}: config.json says {name!r} (model type {stated!r}), which minivit does "
            f"not run; of transformers it runs the types {', '.join(FAMILIES)}"
        )
    names = source.tensors

    def there(end: str) -> bool:
        return any(name.endswith(end) for name in names)

    if there("embeddings.patch_embedding.weight"):
        return "clip" if there("embeddings.class_embedding") else "siglip"
    if there("layer_scale1.lambda1"):
        return "dinov2_with_registers" if there("register_tokens") else "dinov2"
    if not there("embeddings.cls_token"):
        return "ijepa"
    if there("decoder.decoder_embed.weight"):
        return "vit_mae"
    return "deit" if there("distillation_token") else "vit"


def class_named(source: Source) -> str:
    """The class that config.json names under `architectures`; "" where it names none."""
    names = source.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def rule_of(source: Source, kind: str, tensor_names: Iterable[str]) -> tuple[str, Rule]:
    """The class that made a file and its rule.

    Args:
        source: The file, for its config.json.
        kind: A key of `FAMILIES`.
        tensor_names: Names of the tensors without the tower's prefix.

    Raises:
        ConvertError: A class that minivit does not run, or one that does not fit the tensors.
    """
    classes = FAMILIES[kind].classes
    there = {first for name in tensor_names if (first := name.split(".")[0]) in PARTS}
    name = class_named(source)
    if not name:
        fitting = [
            name for name, rule in classes.items() if there <= {*rule.head, *rule.unused}
        ] or list(classes)[:1]
        # the class whose head is there; else the tower without a head
        name = next((name for name in fitting if there & {*classes[name].head}), fitting[0])
    if name not in classes:
        raise ConvertError(
            f"{source.path}: config.json says {name!r}, a class that minivit does not run; of "
            f"{kind!r} it runs {', '.join(classes)}"
        )
    rule = classes[name]
    if extra := sorted(there - {*rule.head, *rule.unused}):
        if kind == "siglip" and extra[0] == "head":
            raise ConvertError(
                f"{source.path}: {name} pools by attention (its 'head'), which minivit does not run"
            )
        raise ConvertError(
            f"{source.path}: {name} has no {extra[0]!r}, yet the file has: write the class that "
            "made it into config.json (architectures)"
        )
    return name, rule
