"""Models whose training is undone: all of it, or block by block.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (arXiv:1810.03292): a map that explains what
a model has learned has to change when the learned weights go. Here weights go back to starting
weights, first those of the head, then block after block from the last to the first, at the end the
embeddings; every step keeps what the steps before it did ("cascading randomisation").

The walk is over parameters by name and not over modules, so that class token, positions and the
queries, keys and values are reached whatever kind of module holds them. All happens to copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from minivit.vit import VisionTransformer

_EMBEDDINGS = {"patch_embed", "cls_token", "dist_token", "reg_token", "pos_embed", "norm_pre"}


def before_training(model: VisionTransformer, seed: int) -> VisionTransformer:
    """A model of the same config with starting weights, in eval mode.

    They are those of `VisionTransformer.initialize`, but a head starts with Xavier-uniform weights
    instead of zeros, under which no class would depend on the picture. Where the config has
    LayerScale, blocks add next to nothing at the start.

    Args:
        model: Model whose config, transform, labels, device and type of numbers are taken.
        seed: Seed for the weights; torch's own random state stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _like(model)
        for head in (fresh.head, fresh.head_dist):
            if isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight)
    return fresh.to(next(model.parameters()))


def parameter_groups(model: VisionTransformer) -> dict[str, list[str]]:
    """Names of the parameters that lose their training in each step, in the order of the steps.

    Every parameter is in one group. The norm after the last block belongs to the head.
    """
    last_first = [f"block {index}" for index in reversed(range(len(model.blocks)))]
    groups: dict[str, list[str]] = {name: [] for name in ["head", *last_first, "embeddings"]}
    for name, _ in model.named_parameters():
        first, *rest = name.split(".")
        if first == "blocks":
            groups[f"block {rest[0]}"].append(name)
        else:
            groups["embeddings" if first in _EMBEDDINGS else "head"].append(name)
    return {group: names for group, names in groups.items() if names}


def randomised(model: VisionTransformer, seed: int) -> Iterator[tuple[str, VisionTransformer]]:
    """The model after each step, from the head's training undone to all of it.

    Args:
        model: Model to copy; it is not touched.
        seed: Seed for the starting weights; the last model is `before_training(model, seed)`.

    Yields:
        Name of the step, as in `parameter_groups`, and the model: one copy, changed in place from
        step to step.
    """
    fresh = dict(before_training(model, seed).named_parameters())
    with torch.random.fork_rng(devices=[]):
        copy = _like(model).to(next(model.parameters()))
    copy.load_state_dict(model.state_dict())
    weights = dict(copy.named_parameters())
    for step, names in parameter_groups(model).items():
        with torch.no_grad():
            for name in names:
                weights[name].copy_(fresh[name])
        yield step, copy


def _like(model: VisionTransformer) -> VisionTransformer:
    """A new model, without the hooks that somebody may have left on this one."""
    fresh = VisionTransformer(model.config, preprocess=model.preprocess, labels=model.labels)
    return fresh.eval()
