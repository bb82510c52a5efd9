"""What people bring: each source with other heads, poolings, wrappers and containers.

A table of combinations, each made by the source's own code at debug size. A conversion is exact
(logits and the last block's attention to 1e-4), or it is refused with the cause, or a note says
what was assumed and the option that decides makes it exact. None is wrong in silence.
"""

from __future__ import annotations

import functools
import itertools
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minivit import VisionTransformer
from tests.references.seeded import foreign_weights, seeded
from weights_convert import ConvertError, convert
from weights_convert.conversion import Converted

pytestmark = pytest.mark.parity

CLASSES, WIDTH = 5, 24


class Situation(NamedTuple):
    """One combination.

    Attributes:
        source: Library whose code makes the model.
        pooling: timm's global_pool, or "avg, norm kept" and "token, norm moved" for a model whose
            classifier was reset; "token" for the other sources.
        head: "own"; "linear", "dropout" or "mlp" in its place; "none".
        wrapper: Prefix of the names; "backbone. + classifier." keeps the head outside.
        container: What is in the file.
        evidence: Where the source tells of itself: "config.json", "args", "name" or "nowhere".
    """

    source: str
    pooling: str = "token"
    head: str = "own"
    wrapper: str = ""
    container: str = "bare"
    evidence: str = "nowhere"


POOLINGS = ("token", "avg", "max", "avgmax", "map", "", "avg, norm kept", "token, norm moved")
HEADS = ("own", "linear", "dropout", "mlp", "none")
WRAPPERS = ("", "module.", "model._orig_mod.", "net.", "backbone. + classifier.")
CONTAINERS = ("bare", "safetensors", "loss beside", "two sets", "average alone")
EVIDENCE = ("config.json", "args", "name", "nowhere")

SITUATIONS = [
    Situation("timm", pooling, head, evidence=evidence)
    for pooling, head, evidence in itertools.product(
        POOLINGS, ("own", "dropout", "mlp", "none"), EVIDENCE
    )
] + [
    Situation(source, "token", head, wrapper, container)
    for source, head, wrapper, container in itertools.product(
        ("timm", "torchvision", "lukemelas"), HEADS, WRAPPERS, CONTAINERS
    )
]
SITUATIONS = list(dict.fromkeys(SITUATIONS))  # a few stand in both


# ---- the source's own code -----------------------------------------------------------------------


class Made(NamedTuple):
    """A source's model, what it makes of the pictures, and how the converter is asked."""

    model: nn.Module
    pictures: Tensor
    logits: Tensor
    attention: Tensor
    options: dict[str, Any]


class Wrapped(nn.Module):
    """A script's own module around the model."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(images))
        return logits


def reseeded(model: nn.Module) -> nn.Module:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(foreign_weights(shapes, 11))
    return model.eval()


def other_head(kind: str, width: int) -> nn.Module:
    """What a script puts in the place of a classifier."""
    head: nn.Module = nn.Linear(width, CLASSES)
    if kind == "dropout":
        head = nn.Sequential(nn.Dropout(0.5), head)
    elif kind == "mlp":
        head = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, CLASSES))
    return nn.Identity() if kind == "none" else head


def make_timm(pooling: str) -> tuple[nn.Module, str, Tensor, dict[str, Any]]:
    import timm

    built = {"avg, norm kept": "token", "token, norm moved": "avg"}.get(pooling, pooling)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), patch_size=16, embed_dim=WIDTH, depth=2,
        num_heads=3, num_classes=CLASSES, global_pool=built,
    )  # fmt: skip
    if built != pooling:
        model.reset_classifier(CLASSES, pooling.partition(",")[0])
    return model, "head", seeded("pictures", (2, 3, 32, 48), 3), {"image_size": (32, 48)}


def make_torchvision() -> tuple[nn.Module, str, Tensor, dict[str, Any]]:
    from torchvision.models import VisionTransformer as Theirs

    model = Theirs(32, 8, num_layers=2, num_heads=3, hidden_dim=WIDTH, mlp_dim=32, num_classes=5)
    return model, "heads", seeded("pictures", (2, 3, 32, 32), 3), {}


def make_lukemelas() -> tuple[nn.Module, str, Tensor, dict[str, Any]]:
    from tests.references import make_pypi  # a small model under a name of its own

    model = make_pypi.make_lukemelas()
    return model, "fc", seeded("pictures", (2, 3, 32, 48), 3), {"image_size": (32, 48)}


def last_attention(source: str, model: Any, pictures: Tensor) -> Tensor:
    """(B, H, N, N) of the last block, by the source's own explicit attention."""
    if source == "timm":
        from tests.references.make_vit import attention_maps

        maps = attention_maps(model)
        model(pictures)
        return maps[1]
    from tests.references import make_pypi

    return make_pypi.CASES[source].run(model, pictures).attentions[-1]


@functools.lru_cache(maxsize=1)  # the same for each container
@torch.no_grad()
def make(source: str, pooling: str, head: str, wrapper: str) -> Made:
    made = make_timm(pooling) if source == "timm" else globals()[f"make_{source}"]()
    model, name, pictures, options = made
    width = WIDTH if source != "lukemelas" else 64
    if wrapper.startswith("backbone"):
        setattr(model, name, nn.Identity())
    elif head != "own":
        setattr(model, name, other_head(head, width))
    reseeded(model)
    attention = last_attention(source, model, pictures)
    whole = model
    if wrapper.startswith("backbone"):
        whole = Wrapped(model, reseeded(other_head(head, width))).eval()
    options = options | {"num_heads": attention.shape[1]}
    return Made(whole, pictures, whole(pictures), attention, options)


# ---- its file ------------------------------------------------------------------------------------


def write(situation: Situation, made: Made, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file or folder, and what the converter has to be told besides."""
    options = dict(made.options)
    if situation.source == "timm" and situation.evidence == "config.json":
        from timm.models import save_for_hf

        save_for_hf(made.model, folder, safe_serialization=True)
        return folder, {}
    prefix = "" if situation.wrapper.startswith("backbone") else situation.wrapper
    weights = {f"{prefix}{name}": tensor for name, tensor in made.model.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in weights.items()}
    path = folder / "best.pth"
    if situation.container == "safetensors":
        save_file(weights, folder / "best.safetensors")
        return folder / "best.safetensors", options
    content: dict[str, Any] = {
        "bare": weights,
        "loss beside": {"epoch": 3, "model_state_dict": weights, "loss": torch.tensor(0.4)},
        "two sets": {"state_dict": other, "state_dict_ema": weights, "epoch": 3},
        "average alone": {"model_ema": weights, "rng_state": torch.get_rng_state()},
    }[situation.container]
    if situation.evidence == "args":
        gp = situation.pooling.partition(",")[0]
        kwargs = {"patch_size": 16, "embed_dim": WIDTH, "depth": 2, "num_heads": 3}
        args = Namespace(model="vit_tiny_patch16_224", gp=gp, model_kwargs=kwargs, lr=0.1)
        content = {"arch": "vit_tiny_patch16_224", "state_dict": weights, "args": args}
        del options["num_heads"]
    elif situation.evidence == "name":
        path = folder / "vit_tiny_patch16_224.pth"
    torch.save(content, path)
    return path, options


# ---- what must come out --------------------------------------------------------------------------


def cause(situation: Situation) -> str | None:
    """What a refusal must say; None: no refusal."""
    pooling, head, evidence = situation.pooling, situation.head, situation.evidence
    if head == "mlp":
        return r"the head is an MLP: .*(0|2)"
    if pooling == "map":
        return "attention pooling"
    states = evidence in ("config.json", "args")
    if pooling in ("max", "avgmax") and states:
        return f"global_pool '{pooling}' .*minivit does not run"
    if pooling == "" and states and head != "none":
        return "no pooling: a head on every token"
    if pooling == "token, norm moved" and evidence == "args":  # args do not tell of the norm
        return "states class-token pooling, the tensors have fc_norm"
    return None


def assumption(situation: Situation) -> tuple[str, str] | None:
    """What a note must say where nothing tells the pooling, and the --pooling that is right."""
    if situation.evidence in ("config.json", "args"):
        return None
    return {
        "max": ("max and avgmax have the same tensors", ""),
        "avgmax": ("max and avgmax have the same tensors", ""),
        "token, norm moved": ("assumed: the mean over the patches: fc_norm says", "cls"),
        "avg, norm kept": ("the class token, as timm makes it", "mean"),
        "": ("the class token, as timm makes it", ""),
    }.get(situation.pooling)


def apart(converted: Converted, made: Made) -> float:
    """The largest difference of logits and of the last block's attention, from the class token."""
    model = converted.model
    assert isinstance(model, VisionTransformer)
    with torch.no_grad():
        logits, (attention,) = model(made.pictures, return_attention=[-1])
    maps = attention[:, :, 0] - made.attention[:, :, 0]
    return max(float((logits - made.logits).abs().max()), float(maps.abs().max()))


def title(situation: Situation) -> str:
    return "|".join(word or "-" for word in situation)


@pytest.mark.parametrize("situation", SITUATIONS, ids=title)
def test_exact_or_said_or_refused(situation: Situation, tmp_path: Path) -> None:
    made = make(*situation[:4])
    path, options = write(situation, made, tmp_path)
    if (message := cause(situation)) is not None:
        with pytest.raises(ConvertError, match=message):
            convert(path, **options)
        return
    converted = convert(path, **options)
    notes = "\n".join(converted.notes)
    if (expected := assumption(situation)) is not None:
        note, pooling = expected
        assert note in notes
        if pooling:
            converted = convert(path, **options, pooling=pooling)
        elif situation.pooling != "":
            return  # minivit has no maximum over the patches: the note is all that there can be
    if situation.pooling == "" and situation.head == "none":
        with torch.no_grad():
            tokens = converted.model.encode(made.pictures)
        torch.testing.assert_close(tokens, made.logits, atol=1e-4, rtol=0)
        return
    if situation.pooling == "":
        return  # a head on every token, and the note says what the file does not
    assert apart(converted, made) < 1e-4, notes
    if situation.wrapper not in ("", "module."):
        assert "took the prefix" in notes and "may have prepared them otherwise" in notes
    if situation.container == "two sets":
        assert "took the 'state_dict_ema' network" in notes and "'state_dict'" in notes
    if situation.container == "average alone":
        assert "took the 'model_ema' network" in notes


def test_the_table_is_large_and_says_all_three() -> None:
    assert len(set(SITUATIONS)) == len(SITUATIONS) >= 400
    refused = [situation for situation in SITUATIONS if cause(situation) is not None]
    noted = [s for s in SITUATIONS if cause(s) is None and assumption(s) is not None]
    assert len(refused) > 50 and len(noted) > 20
    assert len(SITUATIONS) - len(refused) - len(noted) > 250
