"""The classifier that a recipe asks for: a new one, or one that starts from a checkpoint.

A new model starts as in the paper's code; its position embeddings may start as 2-D sines instead,
so that neighbours begin alike. One that starts from a checkpoint keeps everything but what cannot
fit: positions are resized to another picture size (the paper's section 3.2), and other classes need
another head, which begins at zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from minivit.checkpoint import load_model
from minivit.config import ViTConfig
from minivit.embeddings import resize_position_embedding, sine_position_embedding
from minivit.training.recipes import ClassifyRecipe
from minivit.vit import VisionTransformer


def load_start(recipe: ClassifyRecipe) -> VisionTransformer | None:
    """The model of the checkpoint that a recipe starts from; None: it starts from scratch.

    Raises:
        ValueError: The checkpoint holds no ViT.
        FileNotFoundError: No such checkpoint.
    """
    return load_model(recipe.weights, expected=VisionTransformer) if recipe.weights else None


def make_classifier(
    recipe: ClassifyRecipe, class_names: Sequence[str], start: VisionTransformer | None
) -> tuple[VisionTransformer, str]:
    """The model to train, and one line that says what it is.

    Args:
        recipe: Recipe with the sizes of a new model.
        class_names: Names of the classes.
        start: Result of `load_start`.
    """
    if start is None:
        model = new_classifier(recipe, class_names)
        return model, f"{_size(model)}, from scratch"
    side = recipe.image_size
    size = (side, side) if side else start.config.image_size
    config = dataclasses.replace(
        start.config, image_size=size, num_classes=len(class_names), drop_path=recipe.drop_path
    )
    preprocess = dataclasses.replace(start.preprocess, image_size=size)
    model = VisionTransformer(config, preprocess=preprocess, labels=class_names)
    tensors: dict[str, Tensor] = dict(start.state_dict())
    note = ""
    if start.labels != model.labels:
        new = {name: value for name, value in model.state_dict().items() if name.startswith("head")}
        tensors = {name: value for name, value in tensors.items() if not name.startswith("head")}
        tensors |= new
        head = "missing"
        if start.config.num_classes:
            head = f"for other classes ({start.config.num_classes} of them)"
        note += f"; its head is {head}: made anew"
    if start.pos_embed is not None and size != start.config.image_size:
        tensors["pos_embed"] = resize_position_embedding(
            start.pos_embed.detach(),
            start.grid_size,
            model.grid_size,
            antialias=config.pos_embed_antialias,
            offset=config.pos_embed_offset,
        )
        before, after = ("x".join(map(str, grid)) for grid in (start.grid_size, model.grid_size))
        note += f"; position embeddings resized from {before} to {after} patches"
    model.load_state_dict(tensors)
    return model, f"{_size(model)}, from {recipe.weights}{note}"


def new_classifier(recipe: ClassifyRecipe, class_names: Sequence[str]) -> VisionTransformer:
    """An untrained ViT of the recipe's sizes."""
    side = recipe.image_size or 224
    config = ViTConfig(
        image_size=(side, side),
        patch_size=(recipe.patch_size, recipe.patch_size),
        dim=recipe.dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
        hidden_dim=4 * recipe.dim,
        num_classes=len(class_names),
        activation="gelu",
        layer_norm_eps=1e-6,
        drop_path=recipe.drop_path,
    )
    model = VisionTransformer(config, labels=class_names)
    if recipe.pos_embed_start == "sine":
        assert model.pos_embed is not None
        with torch.no_grad():
            sines = sine_position_embedding(*model.grid_size, config.dim)
            model.pos_embed[0, model.num_prefix_tokens :] = sines / 2
    return model


def _size(model: VisionTransformer) -> str:
    """The size of a model in words."""
    config = model.config
    weights = sum(parameter.numel() for parameter in model.parameters())
    height, width = config.image_size
    return (
        f"a ViT of {weights / 1e6:.2f} M weights: {config.depth} blocks of width {config.dim}, "
        f"pictures of {height}x{width}"
    )
