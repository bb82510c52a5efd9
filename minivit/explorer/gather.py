"""What a page says of a Vision Transformer and its pictures: one document, and arrays beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minivit.data.scenes.objects import COLOURS, outline
from minivit.data.scenes.painting import Layers
from minivit.explain import METHODS, position_similarity, store_queries_keys
from minivit.explain.inside.lens import logit_lens
from minivit.explain.methods.table import FOR_A_CLASS, SIGNED
from minivit.explain.stored_attention import LARGEST
from minivit.explorer.packed import Packed
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer

LIVE_WEIGHTS = 4_000_000
"""Most weights that ride along in a page, which then runs the model itself."""

_MOST_PLACES = 1600  # positions of larger grids are left out: their similarities are places² bytes
_CLASSES_OF_SMALL = 3  # likeliest classes whose maps the page of a small model holds


@dataclass(frozen=True)
class PagePicture:
    """A picture for a page.

    Attributes:
        name: Name that the page shows.
        image: Picture, as `minivit.open_image` gives it.
        layers: Layers of a built-in scene, whose objects can then be moved in the page.
    """

    name: str
    image: Image.Image
    layers: Layers | None = None


def describe(
    model: VisionTransformer,
    pictures: Sequence[PagePicture],
    packed: Packed,
    *,
    name: str,
    methods: Sequence[str],
    preprocess: Preprocess,
    live: bool,
    scores: Mapping[str, str],
) -> dict[str, Any]:
    """The document of a page.

    Args:
        model: Model in eval mode.
        pictures: Pictures to show.
        packed: Arrays of the page, to which those of the document are added.
        name: Name of the weights.
        methods: Methods of explanation whose maps the page holds.
        preprocess: Transform of the pictures.
        live: Whether the weights ride along, so that the page runs the model.
        scores: A few words on methods, which stand beside their names.

    Returns:
        What JSON knows, with arrays as `Packed.add` describes them.
    """
    rows, cols = model.grid_size
    return {
        "version": 1,
        "name": name,
        "config": model.config.to_dict(),
        "preprocess": preprocess.to_dict(),
        "labels": model.labels,
        "signed": sorted(SIGNED),
        "for_a_class": sorted(FOR_A_CLASS),
        "scores": dict(scores),
        "weights": _weights(model, packed) if live else None,
        "positions": (packed.add(_positions(model)) if rows * cols <= _MOST_PLACES else None),
        "pictures": [
            _picture(model, picture, packed, methods=methods, preprocess=preprocess, live=live)
            for picture in pictures
        ],
    }


def _weights(model: VisionTransformer, packed: Packed) -> dict[str, dict[str, Any]]:
    """The tensors of a checkpoint: matrices in 16 bits with a scale a row, vectors as they are.

    16-bit floats would take as many bytes and round each number to 11 bits; a row's whole numbers
    have 15 and a sign for its largest.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        values = tensor.detach().float().cpu()
        if values.dim() < 2 or values.shape[0] == 1:
            weights[name] = {"values": packed.add(values.numpy())}
            continue
        rows = values.flatten(1)  # (rows, …) -> (rows, numbers)
        scales = (rows.abs().amax(dim=1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (rows / scales[:, None]).round().to(torch.int16)
        weights[name] = {"values": packed.add(whole.numpy()), "scales": packed.add(scales.numpy())}
    return weights


def _positions(model: VisionTransformer) -> np.ndarray[Any, np.dtype[np.int8]]:
    """(places, places) cosines in units of 1 / 127."""
    similarity = position_similarity(model).flatten(2).flatten(0, 1)  # (R, C, R, C) -> (N, N)
    return (similarity * 127).round().to(torch.int8).numpy()


def _picture(
    model: VisionTransformer,
    picture: PagePicture,
    packed: Packed,
    *,
    methods: Sequence[str],
    preprocess: Preprocess,
    live: bool,
) -> dict[str, Any]:
    seen = preprocess.view(picture.image)
    images = preprocess(picture.image)[None].to(next(model.parameters()).device)  # (1, C, H, W)
    described: dict[str, Any] = {
        "name": picture.name,
        "source": data_url(seen),
        "size": list(seen.size),
        "grid": list(model.patch_embed.grid_for(*images.shape[-2:])),
    }
    if model.config.num_classes and model.config.head_blocks == 1:
        lens = logit_lens(model, images)[0].float()  # (L + 1, classes)
        described["lens"] = packed.add(lens.cpu().numpy())
        count = min(_CLASSES_OF_SMALL if live else 1, lens.shape[1])
        classes = lens[-1].topk(count).indices.tolist()
    else:
        classes = []
    if not live:
        described["stored"] = _stored(model, images, packed)
    if live and picture.layers is not None:
        described["scene"] = _scene(picture.layers, packed)
    described["maps"] = _maps(model, images, packed, methods, classes)
    return described


def _stored(model: VisionTransformer, images: Tensor, packed: Packed) -> dict[str, Any]:
    """Queries and keys of all blocks, and the logarithm of each row's sum, which columns need."""
    stored = store_queries_keys(model, images)
    width = stored.queries.shape[-1]
    queries = stored.queries * stored.query_scales  # (L, 1, H, N, d)
    keys = stored.keys * stored.key_scales
    sums = [
        torch.logsumexp(q @ k.transpose(-2, -1) * width**-0.5, dim=-1)  # (1, H, N, d) -> (1, H, N)
        for q, k in zip(queries, keys, strict=True)
    ]
    return {
        "queries": packed.add(stored.queries[:, 0].cpu().numpy()),
        "keys": packed.add(stored.keys[:, 0].cpu().numpy()),
        "query_scales": packed.add(stored.query_scales[:, 0, ..., 0].cpu().numpy()),
        "key_scales": packed.add(stored.key_scales[:, 0, ..., 0].cpu().numpy()),
        "sums": packed.add(torch.stack(sums)[:, 0].cpu().numpy()),
    }


def _maps(
    model: VisionTransformer,
    images: Tensor,
    packed: Packed,
    methods: Sequence[str],
    classes: Sequence[int],
) -> list[dict[str, Any]]:
    """A map a method, and one a class where the method knows classes."""
    maps = []
    for method in methods:
        targets = classes if method in FOR_A_CLASS else [None]
        for target in targets:
            values = METHODS[method](model, images, target)[0]  # (1, rows, cols) -> (rows, cols)
            maps.append(
                {"method": method, "target": target}
                | {"values": packed.add(values.detach().float().cpu().numpy())}
            )
    return maps


def _scene(layers: Layers, packed: Packed) -> dict[str, Any]:
    """What the page needs to draw the scene again with its objects elsewhere."""
    return {
        "size": list(layers.ground.shape[1:]),
        "ground": packed.add(layers.ground.astype(np.float16)),
        "light": packed.add(layers.light.astype(np.float16)),
        "noise": packed.add(layers.noise),
        "grain": layers.grain,
        "order": layers.order,
        "bodies": [vars(body) for body in layers.bodies],
        "paints": [
            vars(paint) | {"colour": None, "shift": (paint.colour - COLOURS[body.colour]).tolist()}
            for body, paint in zip(
                layers.bodies, (layers.paints[k] for k in range(len(layers.bodies))), strict=True
            )
        ],
        "colours": COLOURS,
        "outlines": {
            body.shape: [loop.tolist() for loop in outline(body.shape)] for body in layers.bodies
        },
    }


def data_url(image: Image.Image) -> str:
    """A picture as text, without loss."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
