"""A Vision Transformer and an image captioner written by hand, with attention to look at."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minivit import explain as explain
    from minivit import explorer as explorer
    from minivit.attention import AttentionRows as AttentionRows
    from minivit.attention import KeyValueCache as KeyValueCache
    from minivit.attention import MultiHeadAttention as MultiHeadAttention
    from minivit.captioner import Captioner as Captioner
    from minivit.checkpoint import CheckpointError as CheckpointError
    from minivit.checkpoint import load_model as load_model
    from minivit.checkpoint import save_model as save_model
    from minivit.config import CaptionerConfig as CaptionerConfig
    from minivit.config import ViTConfig as ViTConfig
    from minivit.inspected import Attentions as Attentions
    from minivit.preprocess import BadImageError as BadImageError
    from minivit.preprocess import Preprocess as Preprocess
    from minivit.preprocess import open_image as open_image
    from minivit.vit import VisionTransformer as VisionTransformer

__version__ = "0.1.0"  # the only place: pyproject.toml reads it here

# Where each public name lives. Names are imported when they are first used, so that a command can
# answer --help without waiting for torch.
_HOME = {
    "AttentionRows": "attention",
    "Attentions": "inspected",
    "KeyValueCache": "attention",
    "MultiHeadAttention": "attention",
    "Captioner": "captioner",
    "CheckpointError": "checkpoint",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "BadImageError": "preprocess",
    "Preprocess": "preprocess",
    "open_image": "preprocess",
    "VisionTransformer": "vit",
    "ViTConfig": "config",
    "CaptionerConfig": "config",
}
_SUBPACKAGES = ("explain", "viz", "data", "training", "explorer")

__all__ = [*_HOME, "explain", "explorer"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"minivit.{_HOME[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"minivit.{name}")
    raise AttributeError(f"module 'minivit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_SUBPACKAGES])
