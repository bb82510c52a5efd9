"""visualize.py explain: what is drawn where, and what it says about bad input."""

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
from minivit.commands.explain_flags import DEFAULT_METHODS
from minivit.explain import METHODS
from minivit.explain.methods.integrated_gradients import integrate
from minivit.explain.methods.table import FOR_A_CLASS, SIGNED
from tests.explain.scored_models import sharp

LABELS = ("ant", "bee", "7", "cat, tom cat", "cat, tabby")

Calls = list[SimpleNamespace]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with two registers, on 4 x 6 patches, and five labels, one a number."""
    model = sharp()
    model.labels = LABELS
    path = tmp_path_factory.mktemp("weights") / "sharp.safetensors"
    minivit.save_model(model, path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces the drawing by a small empty figure, and records what was to be drawn."""
    calls = []

    def methods_figure(photo: Image.Image, box: Any, maps: Any, **others: Any) -> Figure:
        calls.append(SimpleNamespace(photo=photo, box=box, maps=maps, **others))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.methods_figure", methods_figure)
    return calls


def explain(*words: object) -> int:
    return visualize.main(["explain", "--overwrite", *map(str, words)])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The single line on standard error, with nothing on standard output."""
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


# ---- what is drawn -------------------------------------------------------------------------------


def test_all_methods_are_drawn_for_the_shipped_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--methods", "all", "--steps", 4, "--out", out]
    assert explain(*words) == 0
    captured = capsys.readouterr()
    remark = "drawn by scenes.safetensors, shipped with minivit"
    assert captured.err == "" and captured.out.splitlines()[0] == f"{out / 'scene.png'}: {remark}"
    before = (out / "scene.png").read_bytes()
    with Image.open(out / "scene.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert explain(*words) == 0
    assert (out / "scene.png").read_bytes() == before


def test_maps_are_those_of_the_methods_for_the_class_that_is_given(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path
) -> None:
    words = [photo, "--weights", weights, "--out", tmp_path / "out", "--seed", 3]
    assert explain(*words, "--methods", "all", "--target", "bee", "--whole", "--smooth") == 0
    assert explain(*words) == 0
    named, default = drawn
    model = minivit.load_model(weights)
    resized = Image.open(photo).resize((48, 32), Image.Resampling.BICUBIC)  # 3:2, 4 x 6 patches
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255
    images = (pixels - 0.5) / 0.5
    with torch.no_grad():
        odds = model(images)[0].softmax(dim=-1)
    assert list(named.maps) == list(METHODS) and list(default.maps) == list(DEFAULT_METHODS)
    for name, drawn_map in named.maps.items():
        options = {"seed": 3} if name in ("random", "smooth_gradient") else {}
        if name == "integrated_gradients":
            options = {"steps": 32}
        (expected,) = METHODS[name](model, images, 1, **options)
        torch.testing.assert_close(drawn_map, expected, atol=1e-5, rtol=1e-3)
        if name in FOR_A_CLASS:
            (other,) = METHODS[name](model, images, 0, **options)
            assert not torch.allclose(drawn_map, other, rtol=1e-2, atol=0), name
    assert named.heading.startswith(f"Explained: class 1 bee ({odds[1]:.1%}), given by --target\n")
    best = int(odds.argmax())
    assert best != 1
    said = f"Explained: class {best} {LABELS[best]} ({odds[best]:.1%}), the predicted one\n"
    assert default.heading == said + "weights: sharp.safetensors"
    predicted = f"photo.png\npredicted: {LABELS[best]} ({odds[best]:.1%})"
    assert named.photo_title == default.photo_title == predicted
    assert named.smooth is True and default.smooth is False and named.signed == SIGNED
    assert "the same for every class: attention, rollout, centre" in default.notes
    assert named.photo.size == (120, 80)


@pytest.mark.parametrize("flags", [[], ["--whole"]])
@pytest.mark.parametrize("kind", ["square", "wide", "turned", "odd"])
def test_panels_lie_where_those_of_attention_lie(
    kind: str, flags: list[str], tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"square": (90, 90), "wide": (333, 60), "turned": (60, 90), "odd": (101, 67)}[kind]
    exif = Image.Exif()
    if kind == "turned":
        exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.effect_noise(size, 80).convert("RGB").save(path, exif=exif)
    figures: list[Figure] = []
    monkeypatch.setattr(
        "minivit.commands.pictures.write_figure", lambda figure, *_, **__: figures.append(figure)
    )
    words = [str(path), "--weights", str(weights), "--out", str(tmp_path / "out"), *flags]
    assert visualize.main(["attention", *words]) == 0
    assert explain(*words, "--methods", "attention,class_similarity") == 0
    attention, explained = ([axes for axes in figure.axes if axes.images] for figure in figures)
    for panel, other in zip(explained[:3], attention[:3], strict=True):
        assert panel.get_xlim() == pytest.approx(other.get_xlim())
        assert panel.get_ylim() == pytest.approx(other.get_ylim())
        extents = [[image.get_extent() for image in axes.images] for axes in (panel, other)]
        assert np.allclose(*extents)
        for axes in (panel, other):  # pixels are square, in both figures
            frame = axes.get_window_extent()
            left, right = axes.get_xlim()
            bottom, top = axes.get_ylim()
            shape = (frame.width / frame.height) / ((right - left) / (bottom - top))
            assert shape == pytest.approx(1, rel=1e-3)
    maps = [panels[1].images[1].get_array() for panels in (explained, attention)]
    assert np.allclose(*maps, atol=1e-6)


def test_the_completeness_error_is_printed_and_drawn(
    tmp_path: Path,
    photo: Path,
    drawn: Calls,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [photo, "--weights", weights, "--out", tmp_path, "--methods", "integrated-gradients"]
    model = minivit.load_model(weights)
    images = model.preprocess(Image.open(photo))[None]
    for steps, coarse in ((1, True), (64, False)):
        assert explain(*words, "--steps", steps, "--out", tmp_path / "out") == 0
        file, line = capsys.readouterr().out.splitlines()
        integral = integrate(model, images, steps=steps)
        parts, difference, error = (
            float(number)
            for number in re.findall(r"(?:sum to|colour is|error) ([-+\d.e]+\d)", line)
        )
        assert line.startswith("photo.png: integrated_gradients: the parts sum to ")
        assert file == str(tmp_path / "out" / "photo.png")
        assert difference == pytest.approx(float(integral.difference), rel=1e-3)
        assert parts == pytest.approx(float(integral.attributions.sum()), rel=1e-3)
        assert error == pytest.approx(abs(float(integral.error)), rel=0.1)
        assert ("give more --steps" in line) is coarse
        assert line.removeprefix("photo.png: ") in drawn[-1].notes


def test_a_label_that_looks_like_a_number_is_a_label(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path
) -> None:
    words = [photo, "--weights", weights, "--out", tmp_path / "out", "--methods", "legrad"]
    for target, said in (("7", "class 2 7"), ("4", "class 4 cat, tabby"), ("ant", "class 0 ant")):
        assert explain(*words, "--target", target) == 0
        assert drawn[-1].heading.startswith(f"Explained: {said} (")


# ---- files, and what is left out -----------------------------------------------------------------


def test_good_photos_come_out_beside_bad_ones_and_stems_do_not_clash(
    tmp_path: Path,
    photo: Path,
    drawn: Calls,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "photo.jpg").write_bytes(photo.read_bytes())
    words = [photo, tmp_path / "missing.jpg", tmp_path / "again" / "photo.jpg"]
    out = tmp_path / "out"
    assert explain(*words, "--methods", "attention", "--weights", weights, "--out", out) == 2
    captured = capsys.readouterr()
    assert captured.out.split() == [str(out / "photo.png"), str(out / "photo-2.png")]
    assert captured.err.startswith(f"error: {tmp_path / 'missing.jpg'}: ")
    assert sorted(os.listdir(out)) == ["photo-2.png", "photo.png"]


@pytest.mark.parametrize("methods", [[], ["--methods", "all"]])
def test_methods_that_were_not_named_are_left_out_with_a_line(
    methods: list[str],
    tmp_path: Path,
    photo: Path,
    drawn: Calls,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, options, without in (
        ("headless", {"num_classes": 0}, FOR_A_CLASS),
        (
            "mean",
            {"class_token": False, "pooling": "mean"},
            {"attention", "rollout", "value_norm", "class_similarity"},
        ),
    ):
        path = tmp_path / f"{name}.safetensors"
        minivit.save_model(sharp(**options), path)
        assert explain(photo, "--weights", path, "--out", tmp_path / "out", *methods) == 0
        given = list(METHODS) if methods else list(DEFAULT_METHODS)
        assert list(drawn[-1].maps) == [each for each in given if each not in without]
        lines = capsys.readouterr().err.splitlines()
        left_out = [line.split(" ")[2] for line in lines if line.startswith("left out: ")]
        assert left_out == [each for each in given if each in without] and lines
    assert drawn[0].heading.startswith("No class is explained: the model has no head\n")
    assert drawn[0].photo_title == "photo.png"


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_input_is_one_line_before_photos_are_opened(
    tmp_path: Path, photo: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headless, mean = tmp_path / "headless.safetensors", tmp_path / "mean.safetensors"
    minivit.save_model(sharp(num_classes=0), headless)
    minivit.save_model(sharp(class_token=False, pooling="mean"), mean)
    out = tmp_path / "out"
    cases: list[tuple[list[object], str]] = [
        (["--methods", "rolout"], "--methods rolout: no method is called so; choose from att"),
        (["--methods", "all,legrad"], "--methods all: no method is called so"),
        (["--target", "dog"], "--target dog: no class is called 'dog': choose from a"),
        (["--target", "Cat"], "alike: 'cat, tom cat', 'cat, tabby'"),
        (["--target", "5"], "--target 5: class 5: choose from 0 to 4"),
        (["--target=-1"], "class -1: choose from 0 to 4"),
        (["--weights", headless, "--target", "1"], "--target 1: the model has no h"),
        (["--weights", headless, "--methods", "legrad"],
         f"--methods legrad: {headless}: the model has no head"),
        (["--weights", mean, "--methods", "edges,rollout"],
         f"--methods rollout: {mean}: the model has no class token"),
        (["--weights", "scenes_captioner"], "explain needs a VisionTransformer; use visualize.py "),
        (["--out", photo.parent], "photo.png: is an input"),
    ]  # fmt: skip
    for words, message in cases:
        photos = [photo, tmp_path / "missing.jpg"]  # which would be complained about first
        assert explain(*photos, "--weights", weights, "--out", out, *words) == 2
        assert message in complaint(capsys), message
        assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--methods", "a,,b"], ["--steps", "0"], ["--smooth", "--cells"]]
)
def test_a_malformed_flag_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        explain("photo.png", *words)
    assert ended.value.code == 2 and words[0] in complaint(capsys)


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        explain("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for flag in ("--methods A,B|all", "--target LABEL|NUMBER", "--whole", "--steps N", "--smooth"):
        assert flag in text
    assert "(default: " + ", ".join(DEFAULT_METHODS) in text
