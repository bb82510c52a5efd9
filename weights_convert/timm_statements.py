"""What a timm checkpoint says of itself, and what follows from it where no tensor tells.

The order of evidence: what the tensors prove; what the file's own config.json states, or the
settings that timm's training script saves beside the weights; timm's table of published models, by
the model's name; timm's defaults, which are noted as assumed. Statements that contradict each other
are refused, and the message names the option that decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from minivit.config import ViTConfig
from weights_convert.architecture import Hints, is_published_width
from weights_convert.catalogue import TimmModel, timm_model
from weights_convert.options import without_checksum
from weights_convert.reading import ConvertError, Source

# Models of timm's with the tensors of a plain ViT that compute something else with them.
_OTHER_MODELS = {
    "rpn": "normalises after attention and MLP",
    "rope": "turns queries and keys by their position",
}


_POOLINGS = {"token": "cls", "avg": "mean"}
_OTHER_POOLINGS = {
    "max": "the largest value over the patches",
    "avgmax": "half mean, half largest value over the patches",
    "map": "attention pooling",
    "prr": "attention pooling",
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
# Arguments of timm's VisionTransformer that its tensors show, or that change nothing when it runs.
_SHOWN = frozenset(
    (
        *("patch_size", "embed_dim", "depth", "mlp_ratio", "num_classes", "in_chans"),
        *("qkv_bias", "proj_bias", "qk_norm", "scale_attn_norm", "scale_mlp_norm", "init_values"),
        *("class_token", "pos_embed", "no_embed_class", "reg_tokens", "pre_norm", "final_norm"),
        *("fc_norm", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
        *("attn_drop_rate", "drop_path_rate", "weight_init", "fix_init", "device", "dtype"),
        *("dynamic_img_size", "dynamic_img_pad", "strict_img_size", "scriptable", "exportable"),
        *("drop_block_rate", "drop_connect_rate", "pretrained_strict"),
    )
)
_OTHER_LAYERS = ("attn_layer", "block_fn", "mlp_layer", "embed_layer", "embed_norm_layer")
_HANDLED = frozenset(
    (
        *("global_pool", "num_heads", "act_layer", "img_size", "norm_layer", "pool_include_prefix"),
        *_OTHER_LAYERS,
    )
)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a source says of itself, and the published model that it names.

    Attributes:
        name: Name of the model.
        by: Origin of the name: "--name", "config.json", "the checkpoint's args", "the file's name".
        published: Row of timm's table with this name; None: timm has no such ViT.
        args: Arguments with which the model was made, by timm's names; {} where nothing says.
        pooling: Name of the pooling of the model that was saved, in timm's words.
        photos: Mean, std, crop_pct and the like.
        labels: Names of the classes.
    """

    name: str
    by: str
    published: TimmModel | None
    args: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    photos: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the file itself names the architecture and says in what the model departs."""
        return self.by in ("config.json", "the checkpoint's args")


def read_statements(source: Source, hints: Hints) -> Stated:
    """The statements of config.json or of a training script, and the model's name.

    Raises:
        ConvertError: A --name that contradicts them.
    """
    settings = source.config if "architecture" in source.config else {}
    by = "config.json"
    if not settings and timm_model(str(source.training.get("model", ""))) is not None:
        settings, by = _of_training(source.training), "the checkpoint's args"
    if not settings:
        by = "--name" if hints.name_is_given else "the file's name"
        name = without_checksum(hints.name)
        return Stated(name=name, by=by, published=timm_model(name))
    photos = settings.get("pretrained_cfg") or settings  # older timm wrote one flat table
    architecture = str(settings["architecture"])
    given = without_checksum(hints.name)
    if hints.name_is_given and given.split(".")[0] != architecture.split(".")[0]:
        raise ConvertError(
            f"--name {hints.name} contradicts {by}: {architecture}; leave the option away, or mend "
            "what it contradicts"
        )
    tagged = ".".join(filter(None, (architecture.split(".")[0], photos.get("tag"))))
    name = next((n for n in (given, tagged) if timm_model(n) and n.startswith(architecture)), "")
    return Stated(
        name=name or architecture,
        by=by,
        published=timm_model(name or architecture),
        args=settings.get("model_args") or {},
        pooling=settings.get("global_pool"),
        photos=photos,
        labels=_labels(settings, photos),
    )


def _of_training(args: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of timm's train.py in the words of its config.json."""
    photos = {
        "mean": args.get("mean"),
        "std": args.get("std"),
        "crop_pct": args.get("crop_pct"),
        "interpolation": args.get("interpolation"),
        "input_size": args.get("input_size"),
    }
    model_args = {"in_chans": args.get("in_chans"), **(args.get("model_kwargs") or {})}
    if isinstance(args.get("img_size"), int):
        photos["input_size"] = photos["input_size"] or [3, args["img_size"], args["img_size"]]
    return {
        "architecture": args["model"],
        "global_pool": args.get("gp"),
        "model_args": {key: value for key, value in model_args.items() if value is not None},
        "pretrained_cfg": {key: value for key, value in photos.items() if value is not None},
    }


def _labels(settings: Mapping[str, Any], photos: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes, described in words where config.json has these too."""
    names = settings.get("label_names") or photos.get("label_names")
    words = settings.get("label_descriptions") or photos.get("label_descriptions") or {}
    if isinstance(names, dict):
        names = [names.get(str(index)) for index in range(len(names))]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(str(words.get(name, name)) for name in names)


def check_statements(stated: Stated, hints: Hints) -> None:
    """Refuses models and arguments that compute what minivit does not.

    Raises:
        ConvertError: Such a model or argument.
    """
    for word, reason in _OTHER_MODELS.items():
        if stated.published is None and word in stated.name.split("_"):
            raise ConvertError(f"{stated.name} {reason}, which minivit does not run")
    if stated.args.get("pool_include_prefix"):
        raise ConvertError(
            f"{stated.by}: pool_include_prefix, a mean over all tokens, which minivit does not run"
        )
    for name in _OTHER_LAYERS:
        if stated.args.get(name) is not None:
            raise ConvertError(
                f"{stated.by}: {name} {stated.args[name]!r}, which minivit does not run"
            )
    if strange := sorted(set(stated.args) - _SHOWN - _HANDLED):
        hints.assume(f"{', '.join(strange)} in {stated.by} changes nothing that the model computes")


def check_width(tensors: Mapping[str, Tensor], stated: Stated, num_heads: int) -> None:
    """Refuses a published name on tensors of another width, which would give wrong heads.

    Raises:
        ConvertError: No published model has heads of the width that would come out.
    """
    kernel = tensors.get("patch_embed.proj.weight")
    if stated.is_complete or kernel is None or is_published_width(len(kernel), num_heads):
        return
    raise ConvertError(
        f"{stated.name} (by {stated.by}) has {num_heads} heads, the tensors are {len(kernel)} "
        "wide: another model; give --num-heads, or its own name with --name"
    )


def activation_and_epsilon(
    tensors: Mapping[str, Tensor], stated: Stated, hints: Hints
) -> tuple[str, float]:
    """The flavour of the MLPs and the epsilon of the norms.

    Raises:
        ConvertError: A layer that minivit has not, or an option that contradicts the source.
    """
    published = stated.published
    if published is not None:
        activation, eps = published.activation, published.layer_norm_eps
    else:
        clip = "norm_pre.weight" in tensors
        quick = "quickgelu" in stated.name
        activation, eps = ("quick_gelu" if quick else "gelu"), (1e-5 if clip or quick else 1e-6)
    layer, norm = stated.args.get("act_layer"), stated.args.get("norm_layer")
    if layer:
        if layer not in _ACTIVATIONS:
            raise ConvertError(
                f"{stated.by}: act_layer {layer!r}; minivit runs {', '.join(_ACTIVATIONS)}"
            )
        activation = _ACTIVATIONS[layer]
        hints.agree("activation", activation, stated.by)
    if norm:
        if norm != "layernorm":
            raise ConvertError(f"{stated.by}: norm_layer {norm!r}; minivit runs 'layernorm'")
        eps = 1e-6  # of timm's layer of this name
    return activation, eps


def image_size(
    tensors: Mapping[str, Tensor], stated: Stated, hints: Hints
) -> tuple[int, int] | None:
    """Pixels that the positions are made for: the first statement that they have room for.

    Raises:
        ConvertError: A size that the model was made with, and that its positions do not have.
    """
    made_for = stated.args.get("img_size")
    if made_for is not None:
        height, width = (made_for, made_for) if isinstance(made_for, int) else made_for
        if not _fits(tensors, (height, width)):
            raise ConvertError(
                f"{stated.by}: img_size {height}x{width} does not fit the position embeddings; "
                "mend it, or take it out"
            )
        hints.agree("image_size", (height, width), stated.by)
        return height, width
    return next((size for size in stated_sizes(stated, hints) if _fits(tensors, size)), None)


def stated_sizes(stated: Stated, hints: Hints) -> list[tuple[int, int]]:
    """Sizes that somebody names, the surest first."""
    sizes = [hints.image_size] if hints.image_size else []
    made_for = stated.args.get("img_size")
    if made_for is not None:
        sizes.append((made_for, made_for) if isinstance(made_for, int) else tuple(made_for))
    if len(stated.photos.get("input_size") or ()) == 3:
        sizes.append(tuple(stated.photos["input_size"][1:]))
    if stated.published is not None:
        sizes.append((stated.published.image_height, stated.published.image_width))
    return sizes


def _fits(tensors: Mapping[str, Tensor], size: tuple[int, int]) -> bool:
    """Whether there are positions for the patches of this size, with or without the tokens'."""
    if not {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys():
        return True  # what is missing will be said elsewhere
    height, width = tensors["patch_embed.proj.weight"].shape[2:]
    others = tensors["pos_embed"].shape[1] - (size[0] // height) * (size[1] // width)
    return others in (0, ("cls_token" in tensors) + ("dist_token" in tensors))


def pooling(tensors: Mapping[str, Tensor], stated: Stated, hints: Hints) -> str:
    """What the head sees: by the tensors, by the source, by the table; in this order.

    timm moves the last norm behind the pooling (`fc_norm`) unless it pools the class token, so that
    `fc_norm` alone proves a mean or a maximum. Which of the two, no tensor shows.

    Raises:
        ConvertError: A pooling that minivit has not, or statements that contradict each other.
    """
    word = _stated_pooling(stated, hints)
    moved_norm = "fc_norm.weight" in tensors
    if "dist_token" in tensors and (moved_norm or word not in (None, "", "token")):
        raise ConvertError("a distillation token goes with class-token pooling alone")
    if hints.pooling is not None:
        if word is not None:
            hints.agree("pooling", _POOLINGS.get(word, word), stated.by)
        return hints.pooling
    if word:
        if word == "token" and moved_norm and not stated.args.get("fc_norm"):
            raise ConvertError(
                f"{stated.by} states class-token pooling, the tensors have fc_norm, which timm "
                "makes for a mean or a maximum: mend the statement, or take it out and give "
                "--pooling"
            )
        return _POOLINGS[word]
    if word == "" and "head.weight" in tensors:
        raise ConvertError(
            f"{stated.by}: no pooling: a head on every token, which minivit does not run"
        )
    if word == "":
        hints.notes.append(
            "no pooling in timm, whose output is encode(images); the model's own is one of these "
            "tokens or the mean of the patches"
        )
    published = stated.published
    if moved_norm or "cls_token" not in tensors:
        if published is None or published.pooling != "mean":
            proof = "fc_norm" if moved_norm else "no class token"
            hints.assume(
                f"the mean over the patches: {proof} says that it is not the class token (timm's "
                "max and avgmax have the same tensors, and minivit does not run them)"
            )
        return "mean"
    if published is not None and published.pooling == "mean":
        return "mean"
    _assume_class_token(tensors, stated, hints)
    return "cls"


def _assume_class_token(tensors: Mapping[str, Tensor], stated: Stated, hints: Hints) -> None:
    """A note, unless it is the published model with as many outputs as it has."""
    head = tensors.get("head.weight")
    outputs = 0 if head is None else len(head)
    if stated.published is None or stated.published.num_classes != outputs:
        what = "the head sees" if outputs else "the features are those of"
        hints.assume(f"{what} the class token, as timm makes it (else give --pooling mean)")


def _stated_pooling(stated: Stated, hints: Hints) -> str | None:
    """The pooling that the source states; what it was made with, and what was saved, must agree."""
    made_with = stated.args.get("global_pool")
    words = {word for word in (made_with, stated.pooling) if word is not None}
    if len(words) > 1:
        if hints.pooling is not None:
            return None
        raise ConvertError(
            f"{stated.by} states two poolings, {stated.pooling!r} and in model_args {made_with!r}: "
            "say which with --pooling"
        )
    word = words.pop() if words else None
    if word and word not in _POOLINGS:
        what = _OTHER_POOLINGS.get(word, "unknown")
        raise ConvertError(
            f"{stated.by}: global_pool {word!r} ({what}), which minivit does not run"
        )
    return word


def note_differences(config: ViTConfig, stated: Stated, hints: Hints) -> None:
    """Names what the source states and its tensors contradict; the tensors are right."""
    for name, value in (
        ("embed_dim", config.dim),
        ("depth", config.depth),
        ("num_classes", config.num_classes),
        ("in_chans", config.in_channels),
        ("reg_tokens", config.num_register_tokens),
    ):
        wanted = stated.args.get(name)
        if wanted is not None and wanted != value:
            hints.notes.append(f"{stated.by} states {name} {wanted}, the tensors have {value}")
