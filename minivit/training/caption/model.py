"""The captioner that a recipe asks for: a new one on a given backbone, or one to train further."""

from __future__ import annotations

from minivit.captioner import Captioner
from minivit.checkpoint import load_model
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.data.captions.dataset import SceneCaptions
from minivit.data.scenes.dataset import CAPTION_WORDS
from minivit.tokenizer import Tokenizer, WordLevel, WordPiece
from minivit.training.recipes import CaptionRecipe
from minivit.vit import VisionTransformer


def make_captioner(recipe: CaptionRecipe) -> Captioner:
    """A new captioner around a given backbone, or the given captioner to go on with.

    The recipe's `weights` is a minivit checkpoint: a captioner is trained further, a ViT or ResNet
    becomes the backbone of a new one; "": the shipped ViT, or an untrained ResNet.

    Args:
        recipe: Recipe of the captioner.

    Raises:
        ValueError: A checkpoint of another kind than the recipe's backbone, or no vocabulary.
    """
    scenes = recipe.data == "scenes"
    weights = recipe.weights or ("scenes" if recipe.backbone == "vit" else None)
    start = None if weights is None else load_model(weights)
    if isinstance(start, Captioner):
        return start
    tokenizer: Tokenizer
    if scenes:
        tokenizer = WordLevel(CAPTION_WORDS)
        longest = SceneCaptions(0, 1, tokenizer).max_length
    else:
        tokenizer, longest = WordPiece.from_file(recipe.vocabulary_file()), 128
    max_length = recipe.max_length or longest
    if start is not None:
        kind = "vit" if isinstance(start, VisionTransformer) else f"resnet{start.config.depth}"
        if kind != recipe.backbone:
            raise ValueError(f"{weights}: a {kind}, this recipe wants a {recipe.backbone}")
    if isinstance(start, VisionTransformer):
        config = captioner_config(recipe, len(tokenizer), max_length, start.config)
        captioner = Captioner(config, tokenizer, preprocess=start.preprocess)
    else:
        config = captioner_config(recipe, len(tokenizer), max_length)
        captioner = Captioner(config, tokenizer)
    if start is not None:
        captioner.backbone.load_state_dict(start.state_dict())
    return captioner


def captioner_config(
    recipe: CaptionRecipe, vocabulary_size: int, max_length: int, vit: ViTConfig | None = None
) -> CaptionerConfig:
    """The config of a new captioner.

    Args:
        recipe: Recipe with widths, depths and the kind of backbone.
        vocabulary_size: Number of words of the tokenizer.
        max_length: Number of positions for words.
        vit: Config of the backbone, where that is a ViT.
    """
    depth = 50 if recipe.backbone == "resnet50" else 101
    return CaptionerConfig(
        backbone=vit or ResNetConfig(depth=depth, dilate_last_stage=True),
        vocabulary_size=vocabulary_size,
        max_length=max_length,
        dim=recipe.dim,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        encoder_depth=recipe.encoder_depth,
        decoder_depth=recipe.decoder_depth,
        head_dim=recipe.head_dim,
        dropout=recipe.dropout,
    )


def captioner_size(captioner: Captioner) -> str:
    """The size of a captioner in words."""
    weights = sum(parameter.numel() for parameter in captioner.parameters())
    return f"a captioner of {weights / 1e6:.2f} M weights, backbone included"
