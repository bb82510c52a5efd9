"""visualize.py model: the figure of a model, its numbers as text, and bad input."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import minivit
import visualize
from minivit.commands.pictures import built_in_scene
from minivit.explain import (
    attention_distance,
    attention_entropy,
    filter_components,
    position_similarity,
)
from tests.explain.scored_models import sharp

Calls = list[SimpleNamespace]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with two registers, on 4 x 6 patches."""
    path = tmp_path_factory.mktemp("weights") / "sharp.safetensors"
    minivit.save_model(sharp(), path)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces the drawing by a small empty figure, and records what was to be drawn."""
    calls = []

    def model_figure(*panels: torch.Tensor, **others: Any) -> Figure:
        calls.append(SimpleNamespace(panels=panels, **others))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.model_figure", model_figure)
    return calls


def model(*words: object) -> int:
    return visualize.main(["model", *map(str, words)])


def test_the_figure_is_written_and_numbers_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model("--out", tmp_path / "out") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == "" and lines[0] == str(tmp_path / "out" / "model.png")
    assert "32 built-in scenes that no training has seen in 96 × 96 pixels" in lines[1]
    assert [line.split(":")[0] for line in lines[2:]] == [f"block {n}" for n in range(4)]
    assert os.listdir(tmp_path / "out") == ["model.png"]
    with Image.open(tmp_path / "out" / "model.png") as picture:
        assert picture.format == "PNG" and picture.width > 1500


def test_numbers_are_means_over_the_scenes(
    tmp_path: Path,
    drawn: Calls,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("minivit.commands.model.NUM_SCENES", 3)
    assert model("--weights", weights, "--seed", 5, "--out", tmp_path / "out") == 0
    loaded = minivit.load_model(weights)
    scenes = [loaded.preprocess(built_in_scene((32, 48), number).seen) for number in (5, 6, 7)]
    images = torch.stack(scenes)
    (call,) = drawn
    filters, similarity, distances, entropies = call.panels
    components = filter_components(loaded, count=28)
    assert torch.equal(filters, components.components)
    assert torch.equal(call.shares, components.shares)
    assert torch.equal(similarity, position_similarity(loaded))
    expected = attention_distance(loaded, images).mean(dim=0)
    torch.testing.assert_close(distances, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        entropies, attention_entropy(loaded, images).mean(dim=0), atol=1e-4, rtol=1e-4
    )
    places = [(8 * row, 8 * col) for row in range(4) for col in range(6)]
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for a in places for b in places]
    assert call.uniform_distance == pytest.approx(np.mean(apart), rel=1e-5)
    assert call.num_tokens == 3 + 24 and call.positions == "learned"
    assert "3 blocks of 2 heads, patches of 8 × 8 pixels" in call.heading
    lines = capsys.readouterr().out.splitlines()[2:]
    for line, far in zip(lines, expected, strict=True):
        near_head, far_head = int(far.argmin()), int(far.argmax())
        lowest, highest = float(far.min()), float(far.max())
        start = (
            f"distance {lowest:.1f} (head {near_head}) to {highest:.1f} pixels (head {far_head})"
        )
        assert start in line


def test_photos_of_any_size_are_averaged_over(
    tmp_path: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "wide.png", tmp_path / "high.png"]
    for path, size in zip(paths, ((120, 80), (61, 99)), strict=True):
        Image.effect_noise(size, 80).convert("RGB").save(path)
    assert model(*paths, "--weights", weights, "--out", tmp_path / "out") == 0
    loaded = minivit.load_model(weights)
    each = [
        attention_distance(loaded, loaded.preprocess(minivit.open_image(path))[None])[0]
        for path in paths
    ]
    torch.testing.assert_close(drawn[0].panels[2], (each[0] + each[1]) / 2, atol=1e-4, rtol=1e-4)
    assert "mean over 2 photos in 32 × 48 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"class_token": False, "pooling": "mean", "num_register_tokens": 0}, "(learned)"),
        ({"pos_embed": "sine"}, "(sine, fixed)"),
        ({"in_channels": 1}, "(learned)"),
        ({"num_classes": 0, "patch_size": (8, 16)}, "(learned)"),
        ({"image_size": (16, 16), "patch_size": (16, 16)}, "(learned)"),
        ({"in_channels": 4}, "4 channels have no colours"),
        ({"in_channels": 4}, "not measured"),
    ],
)
def test_every_kind_of_model_is_drawn(
    options: dict[str, Any], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kind.safetensors"
    minivit.save_model(sharp(**options), path)
    figures: list[Figure] = []
    monkeypatch.setattr("minivit.commands.model.NUM_SCENES", 1)
    monkeypatch.setattr(
        "minivit.commands.model.write_figure", lambda figure, *_, **__: figures.append(figure)
    )
    assert model("--weights", path, "--out", tmp_path / "out") == 0
    (figure,) = figures
    texts = [text.get_text() for text in figure.texts]
    texts += [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(note in text for text in texts)


def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, own = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "model.png"
    Image.new("RGB", (60, 40)).save(good)
    Image.new("RGB", (60, 40)).save(own)
    bad.write_text("no picture")
    before = own.read_bytes()
    out = tmp_path / "out"
    cases: list[tuple[list[object], str]] = [
        ([good, bad], f"error: {bad}: "),
        ([tmp_path / "missing.jpg"], "missing.jpg: "),
        (["--seed", "-1"], "--seed -1: the scenes are numbered from 0"),
        (["--weights", "scenes_captioner"], "model needs a VisionTransformer; use visualize.py c"),
        ([own, "--out", tmp_path], "model.png: is an input and would be overwritten"),
    ]
    for words, message in cases:
        assert model("--weights", weights, "--out", out, *words) == 2
        captured = capsys.readouterr()
        lines = [line for line in re.split(r"[\r\n]", captured.err) if line.strip()]
        assert not captured.out and len(lines) == 1 and message in lines[0], message
        assert not out.exists() and own.read_bytes() == before


def test_help_says_over_what_the_means_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        model("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "IMAGE" in text and "32 built-in scenes" in text
