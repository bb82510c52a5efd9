"""Where the model is in what a file holds: its set of weights, the prefix of its names, the rest.

A training script keeps a model in an attribute of its own (`model.`, `net.`, `backbone.`), beside
the last loss, an optimizer's state, an average of the weights. Every layout has a tensor that no
other part of a checkpoint has, the patch embedding or the class token. Where it stands, the model
stands: what comes before its name is the prefix, and what has not that prefix is another part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]

# A tensor that each layout has once, and the parts of a name that may stand before it in that
# layout's own files.
_ANCHORS = {
    "patch_embed.proj.weight": "",  # timm, DINO, DINOv2
    "conv_proj.weight": "",  # torchvision
    "positional_embedding.pos_embedding": "",  # PyTorch-Pretrained-ViT
    "embeddings.patch_embeddings.projection.weight": (
        r"(?:(?:vit|deit|ijepa|dinov2|dinov2_with_registers)\.)+"
    ),
    "embeddings.patch_embedding.weight": r"(?:vision_model\.)+",
    "class_embedding": r"visual\.",  # CLIP by OpenAI and open_clip
    "backbone.0.body.layer1.0.conv3.weight": "",  # CATR
    "layer1.0.conv3.weight": r"visual\.",  # a ResNet, alone or in CLIP
}
# In files of these layouts other parts of the model stand beside the tower, under these names.
_BESIDE_THE_TOWER = frozenset(
    (
        *("classifier", "cls_classifier", "distillation_classifier", "pooler", "layernorm"),
        *("visual_projection", "text_projection", "text_model", "logit_scale", "logit_bias"),
        *("linear_head", "dino_head", "ibot_head", "head", "decoder", "mask_token"),
        *("transformer", "token_embedding", "positional_embedding", "ln_final", "attn_mask"),
        *("input_resolution", "context_length", "vocab_size", "text"),
    )
)
# Single numbers without a module that belong to a model.
_NUMBERS_OF_A_MODEL = frozenset(
    ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
)
_TRANSPARENT = re.compile(  # wrappers by torch that may stand anywhere in a name
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# In which a training checkpoint keeps its weights, the one to prefer first.
CONTAINERS = ("teacher", "model", "state_dict", "model_state_dict", "student", "model_ema", "net")
_AVERAGE = re.compile(r"(?:^|[_.])(?:ema|swa|avg|average|averaged)(?:[_.]|$)")
_ADAPTER = re.compile(
    r"\.(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)(?:\.|$)"
)


class TowerError(ValueError):
    """Weights that cannot be told apart; the message lacks the file's name."""


@dataclass
class Model:
    """The tensors of one model, by the names that its own code gives them.

    Attributes:
        tensors: Tensors by name.
        container: Name of the dictionary in the file that held them, such as "teacher"; else "".
        prefix: Prefix that was taken off every name.
        outside: Tensors that stood beside the prefix and are neither counters nor the like: a
            head, perhaps.
        notes: Sentences: what was taken, what was left out.
    """

    tensors: Tensors
    container: str = ""
    prefix: str = ""
    outside: Tensors = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_model(content: Mapping[Any, Any], *, which: str | None, prefix: str | None) -> Model:
    """The model in a file's content.

    Args:
        content: Dictionary that the file holds: of tensors, or of dictionaries.
        which: Name of the set of weights to take; None: by the rule of the code that wrote them.
        prefix: Prefix of the model's names; None: the one that there is.

    Raises:
        TowerError: No weights, several models and no word which, or an adapter alone.
    """
    as_saved = dict(_dictionaries(content))
    sets = {path: unwrap(tensors) for path, tensors in as_saved.items()}
    container, notes = _choose(sets, content, which)
    model = Model(sets[container], container, notes=notes)
    if as_saved[container].keys() != model.tensors.keys():
        notes.append("took torch's wrappers (module., _orig_mod.) off the names")
    if adapters := [name for name in model.tensors if _ADAPTER.search(name)]:
        raise TowerError(
            f"holds a PEFT adapter ({len(adapters)} tensors such as {adapters[0]}), whose weights "
            "are not the model's; merge it with merge_and_unload() of PEFT, save that model's "
            "state_dict() and convert it"
        )
    _take_prefix_off(model, prefix)
    _leave_out_counters(model)
    return model


def unwrap(tensors: Tensors) -> Tensors:
    """Takes off what torch's wrappers put into every name: compile, FSDP, data parallel."""
    tensors = {_TRANSPARENT.sub("", name): tensor for name, tensor in tensors.items()}
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


# ---- several sets of weights ---------------------------------------------------------------------


def _dictionaries(content: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Tensors]]:
    """Each dictionary that holds tensors, by its place; an optimizer's state is none of them."""
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield path, tensors
    if path.count(".") >= 2:
        return
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and "optim" not in key.lower():
            yield from _dictionaries(value, f"{path}.{key}" if path else key)


def _choose(
    sets: Mapping[str, Tensors], content: Mapping[Any, Any], which: str | None
) -> tuple[str, list[str]]:
    """The name of the set to take, and what to say about it."""
    models = [path for path, tensors in sets.items() if any(_towers(tensors))]
    choices = ", ".join(repr(path) for path in (models or sets) if path) or "one without a name"
    if which is not None:
        if which not in sets:
            raise TowerError(f"--which {which}: no such set of weights; the file holds {choices}")
        return which, [f"took {which!r}, as --which says"]
    if not sets:
        shown = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise TowerError(
            f"no dictionary of weights in it; found {shown}, expected tensors by name, or one of "
            f"{', '.join(CONTAINERS)}"
        )
    if not models:  # what it is will be asked by other names
        order = ["", *CONTAINERS]
        return min(sets, key=lambda path: order.index(path) if path in order else len(order)), []
    chosen = min(models, key=_rank)
    others = [path for path in models if path != chosen]
    if not others:
        plain = chosen in ("", *CONTAINERS) and chosen not in ("teacher", "student", "model_ema")
        return chosen, [] if plain else [f"took the {chosen!r} network of the checkpoint"]
    reason = "the first by its name"
    if chosen.split(".")[-1] == "teacher":
        reason = "the teacher is what DINO publishes"
    elif _AVERAGE.search(chosen):
        reason = "the average, as timm's loader does"
    return chosen, [
        f"took the {chosen!r} network of the checkpoint, which also holds "
        f"{', '.join(repr(path) for path in others)}: {reason} (else give --which)"
    ]


def _rank(path: str) -> tuple[int, int]:
    last = path.split(".")[-1]
    if last == "teacher":
        return 0, 0
    averages = ("state_dict_ema", "model_ema")
    if _AVERAGE.search(path):
        return 1, averages.index(last) if last in averages else len(averages)
    order = ("", "state_dict", *CONTAINERS)
    return 2, order.index(last) if last in order else len(order)


# ---- the prefix ----------------------------------------------------------------------------------


def _towers(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """(prefix, own): what comes before each model, and the part of a name that is its layout's."""
    for name in tensors:
        for anchor, own in _ANCHORS.items():
            if name != anchor and not name.endswith(f".{anchor}"):
                continue
            before = name.removesuffix(anchor)
            if anchor == "class_embedding" and before.endswith("embeddings."):
                break  # transformers' CLIP, which has another anchor
            if anchor == "patch_embed.proj.weight":
                own = r"backbone\." if _is_dinos(tensors, before) else ""
            natural = re.search(f"(?:^|(?<=\\.))(?:{own})$", before) if own else None
            yield (before[: natural.start()], natural[0]) if natural else (before, "")
            break


def _is_dinos(tensors: Mapping[str, Tensor], before: str) -> bool:
    """Whether `backbone.` is DINO's own word: with its projection, or DINOv2's mask token."""
    if not before.endswith("backbone."):
        return False
    around = before.removesuffix("backbone.")
    return f"{before}mask_token" in tensors or any(
        name.startswith((f"{around}head.mlp.", f"{around}head.last_layer.", f"{around}dino_head."))
        for name in tensors
    )


def _take_prefix_off(model: Model, wanted: str | None) -> None:
    towers = sorted(set(_towers(model.tensors)))
    prefixes = [prefix + own for prefix, own in towers]
    if wanted is not None:
        wanted = wanted if wanted.endswith(".") or not wanted else f"{wanted}."
        if not any(full.startswith(wanted) for full in prefixes):
            shown = ", ".join(repr(full) for full in prefixes) or "no model"
            raise TowerError(f"--prefix {wanted}: no model has this prefix; there is {shown}")
        inside, outside = _split(model.tensors, wanted)
        if len(set(_towers(inside))) > 1:
            raise TowerError(f"--prefix {wanted}: {_several(sorted(set(_towers(inside))))}")
        own_prefix = next(_towers(inside))[0]
        inside, beside = _split(inside, own_prefix)
        model.tensors, model.prefix = inside, wanted + own_prefix
        outside |= {f"{wanted}{name}": tensor for name, tensor in beside.items()}
        _note_prefix(model)
        _note_left_out(model, outside, "as --prefix says")
        return
    if len(towers) > 1:
        raise TowerError(_several(towers))
    if not towers:
        return
    prefix, own = towers[0]
    model.prefix = prefix
    model.tensors, model.outside = _split(model.tensors, prefix)
    if prefix:
        _note_prefix(model)
    if own and not own.startswith("visual."):
        strange = [
            name
            for name in model.tensors
            if not name.startswith(own) and name.split(".")[0] not in _BESIDE_THE_TOWER
        ]
        model.outside |= {name: model.tensors.pop(name) for name in strange}
    if prefix.endswith("visual.trunk."):
        _leave_out_text(model)


def _split(tensors: Tensors, prefix: str) -> tuple[Tensors, Tensors]:
    """Those with the prefix, without it; and the others."""
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return inside, {n: tensor for n, tensor in tensors.items() if not n.startswith(prefix)}


def _several(towers: list[tuple[str, str]]) -> str:
    shown = ", ".join(repr(prefix + own) for prefix, own in towers)
    return f"holds {len(towers)} models, whose names begin with {shown}: choose with --prefix"


def _note_prefix(model: Model) -> None:
    if model.prefix:
        model.notes.append(f"took the prefix {model.prefix!r} off the names")


def _note_left_out(model: Model, tensors: Tensors, why: str) -> None:
    if tensors:
        names = sorted(tensors)
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        model.notes.append(f"left out {shown} ({len(names)} in all), {why}")


# ---- what is no part of the model ----------------------------------------------------------------


def _leave_out_text(model: Model) -> None:
    """open_clip around a tower of timm's: the text tower goes, the image head stays."""
    around = model.prefix.removesuffix("visual.trunk.")
    head = f"{around}visual.head."
    text = {name: tensor for name, tensor in model.outside.items() if not name.startswith(head)}
    _note_left_out(model, text, "the text tower of open_clip")
    model.outside = {name: model.outside[name] for name in model.outside.keys() - text.keys()}


def _leave_out_counters(model: Model) -> None:
    """Losses, counters, class weights, states of generators: no layer has such a shape."""
    counters = {
        name: tensor
        for name, tensor in model.tensors.items()
        if "." not in name
        and name not in _NUMBERS_OF_A_MODEL
        and (tensor.dim() == 0 or not tensor.is_floating_point())
    }
    model.tensors = {n: tensor for n, tensor in model.tensors.items() if n not in counters}
    widths = {t.shape[0] for n, t in model.tensors.items() if "norm" in n and t.dim() == 1}
    layers = {
        name.rpartition(".")[0]
        for name, tensor in model.outside.items()
        if tensor.is_floating_point()
        and (tensor.dim() >= 2 or name.endswith("bias") or tensor.numel() in widths)
    }
    for name in list(model.outside):
        if name.rpartition(".")[0] not in layers:
            counters[name] = model.outside.pop(name)
    _note_left_out(model, counters, "no weights of the model")
