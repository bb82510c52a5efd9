"""Weights and photos for the tests of ablate and doctor, and how the commands are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
import visualize
from minivit.captioner import Captioner
from minivit.config import CaptionerConfig
from minivit.tokenizer import WordLevel

LABELS = ("ant", "bee", "3", "dog", "elk")
WORDS = ["a", "red", "circle", "above", "the", "blue", "star"]


def save_vit(folder: Path, **options: Any) -> Path:
    """A random model of 3 blocks of 2 heads, with five classes; one of them is called "3"."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"depth": 3, "num_classes": 5, "image_size": (32, 32)} | options
    config = minivit.ViTConfig.from_name("debug_patch8_32", **settings)
    model = minivit.VisionTransformer(config, labels=LABELS if config.num_classes else None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    path = folder / "vit.safetensors"
    minivit.save_model(model, path)
    return path


def save_captioner(folder: Path) -> Path:
    """A random captioner of seven words; its ViT has 2 blocks of 2 heads."""
    torch.manual_seed(23)
    config = CaptionerConfig(
        backbone=minivit.ViTConfig.from_name("debug_patch8_64", num_classes=0),
        vocabulary_size=4 + len(WORDS),
        max_length=8,
        dim=32,
        num_heads=2,
        hidden_dim=64,
        encoder_depth=1,
        decoder_depth=2,
        head_dim=32,
    )
    model = Captioner(config, WordLevel(WORDS)).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2)
        model.pos_embed.normal_()
        model.word_embed.weight.normal_()
        weight: Any = model.head[2]
        weight.weight.normal_(std=0.2)
        weight.bias[:4] = -99  # words only
    path = folder / "captioner.safetensors"
    minivit.save_model(model, path)
    return path


def save_photo(path: Path, width: int = 90, height: int = 60) -> Path:
    """Noise, of 3:2 unless other sides are given."""
    generator = np.random.default_rng(len(path.stem))
    noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def visualize_(*words: object) -> int:
    """Calls visualize.py with these words."""
    return visualize.main([str(word) for word in words])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with an error on standard error, and nothing on standard output."""
    captured = capsys.readouterr()
    assert not captured.out and "Traceback" not in captured.err
    lines = [line for line in re.split(r"[\r\n]", captured.err) if "error: " in line]
    assert len(lines) == 1, captured.err
    return lines[0]
