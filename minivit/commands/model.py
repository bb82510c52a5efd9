"""visualize.py model: from weights to one figure of the model, and its numbers as text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from minivit.commands.model_flags import NUM_SCENES
from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import figure_path, heading, write_figure
from minivit.commands.seen import shipped_remark
from minivit.weights import weights_title

if TYPE_CHECKING:
    from torch import Tensor

    from minivit.vit import VisionTransformer

NUM_COMPONENTS = 28  # as in the paper's figure


def describe(model: VisionTransformer, arguments: argparse.Namespace) -> None:
    """Writes DIR/model.png, and prints how far and how broadly the heads of each block look.

    Raises:
        ValueError: A photo cannot be used or would be overwritten, or there is no such scene.
        OSError: The figure cannot be written.
    """
    from minivit.explain import filter_components, position_similarity
    from minivit.viz import model_figure

    target = figure_path(arguments.out, "model", arguments.format)
    outputs = outputs_of(arguments)
    mark = outputs.mark(*arguments.pictures)
    outputs.claim({target: mark})
    heads = _measure_heads(model, arguments)
    weight = model.patch_embed.proj.weight  # (D, C, height, width)
    count = min(NUM_COMPONENTS, weight.shape[0], weight[0].numel())
    filters = filter_components(model, count=count)
    config = model.config
    patch = "{} × {}".format(*config.patch_size)
    figure = model_figure(
        filters.components,
        position_similarity(model),
        heads.distances if heads else None,
        heads.entropies if heads else None,
        shares=filters.shares,
        uniform_distance=heads.uniform_distance if heads else 0.0,
        num_tokens=heads.num_tokens if heads else 1,
        positions={"learned": "learned", "sine": "sine, fixed"}[config.pos_embed],
        colour_map=arguments.colour_map,
        heading=heading(
            arguments,
            f"{config.depth} blocks of {config.num_heads} heads, patches of {patch} pixels\n"
            f"weights: {weights_title(arguments.weights)}",
        ),
        notes=_notes(heads) if heads else "",
    )
    remark = shipped_remark(arguments.weights)
    write_figure(figure, target, remark, mark=mark, dpi=arguments.dpi)
    for line in _lines(heads) if heads else ():
        print(line)


class _Heads(NamedTuple):
    """How the heads of a model look, mean over pictures.

    Attributes:
        distances: (blocks, H) mean attention distance in pixels.
        entropies: (blocks, H) entropy of attention in nats.
        uniform_distance: Distance of a head that looks at all patches alike.
        num_tokens: Number of tokens of the largest picture.
        pictures: Words that say over which pictures.
    """

    distances: Tensor
    entropies: Tensor
    uniform_distance: float
    num_tokens: int
    pictures: str


def _measure_heads(model: VisionTransformer, arguments: argparse.Namespace) -> _Heads | None:
    """Runs the model on the photos, or scenes, one at a time: they may differ in size.

    Returns:
        None where the model takes pictures of other channels than scenes can have.
    """
    import torch
    from tqdm import tqdm

    from minivit.explain import attention_distance, attention_entropy
    from minivit.explain.describe.attention_distance import uniform_distance

    if not arguments.pictures and model.preprocess.channels != model.config.in_channels:
        return None
    device = next(model.parameters()).device
    distances, entropies, uniform, lengths = [], [], [], []
    count = len(arguments.pictures) or NUM_SCENES
    sizes = set()
    # disable=None: a bar on a terminal only.
    with torch.inference_mode():
        for image in tqdm(_images(model, arguments), total=count, disable=None, leave=False):
            images = image[None].to(device)  # (C, H, W) -> (1, C, H, W)
            distances.append(attention_distance(model, images)[0].cpu())
            entropies.append(attention_entropy(model, images)[0].cpu())
            uniform.append(uniform_distance(model, images))
            rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
            lengths.append(model.num_prefix_tokens + rows * cols)
            sizes.add((images.shape[-2], images.shape[-1]))
    kind = "built-in scenes that no training has seen"
    if arguments.pictures:
        kind = "photos" if count > 1 else "photo"
    (height, width), *others = sorted(sizes)
    size = "in several sizes" if others else f"in {height} × {width} pixels"
    return _Heads(
        distances=torch.stack(distances).mean(dim=0),  # (pictures, blocks, H) -> (blocks, H)
        entropies=torch.stack(entropies).mean(dim=0),  # (pictures, blocks, H) -> (blocks, H)
        uniform_distance=sum(uniform) / count,
        num_tokens=max(lengths),
        pictures=f"{count} {kind} {size}",
    )


def _images(model: VisionTransformer, arguments: argparse.Namespace) -> Iterator[Tensor]:
    """The photos or scenes as the model takes them, each (C, H, W).

    Raises:
        ValueError: A photo cannot be used; or there is no such scene.
    """
    from minivit.commands.pictures import built_in_scene
    from minivit.preprocess import BadImageError, open_image

    for path in arguments.pictures:
        try:
            yield model.preprocess(open_image(path))
        except BadImageError as error:
            message = str(error)
            raise ValueError(message if path in message else f"{path}: {message}") from error
    if not arguments.pictures:
        for number in range(arguments.seed, arguments.seed + NUM_SCENES):
            yield model.preprocess(built_in_scene(model.preprocess.image_size, number).seen)


def _notes(heads: _Heads) -> str:
    return (
        f"distance and entropy: a dot a head, mean over {heads.pictures}\n"
        "distances are between middles of patches: class and register tokens have no place and are "
        "left out; entropy is over all tokens"
    )


def _lines(heads: _Heads) -> Iterator[str]:
    """Words for what the lower panels show."""
    yield (
        f"mean over {heads.pictures}; a head that looks at all alike: "
        f"{heads.uniform_distance:.1f} pixels"
    )
    for number, (far, broad) in enumerate(zip(heads.distances, heads.entropies, strict=True)):
        near_head, far_head = int(far.argmin()), int(far.argmax())
        yield (
            f"block {number}: distance {float(far.min()):.1f} (head {near_head}) to "
            f"{float(far.max()):.1f} pixels (head {far_head}), entropy {float(broad.min()):.2f} "
            f"to {float(broad.max()):.2f} nats"
        )
