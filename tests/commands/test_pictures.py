"""Figures for a text: formats, dots per inch, colours, headings, the same for every command."""

from __future__ import annotations

import base64
import re
import struct
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from minivit.commands.pictures import figure_path, name_targets, write_figure
from tests.commands.looked_into import (
    complaint,
    save_captioner,
    save_photo,
    save_vit,
    visualize_,
)

COMMANDS = ["attention", "positions", "caption", "explain", "model", "ablate", "doctor"]
STEMS = {"positions": "positions", "model": "model"}
STARTS = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    vit = save_vit(folder)
    return dict.fromkeys(COMMANDS, vit) | {"caption": save_captioner(folder)}


def words_of(command: str, photo: Path, weights: dict[str, Path]) -> list[object]:
    words: list[object] = [command, "--weights", weights[command]]
    words += [] if command == "positions" else [photo]
    return words + (["--methods", "attention"] if command == "explain" else [])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_writes_vector_files_without_a_heading(
    command: str, tmp_path: Path, weights: dict[str, Path]
) -> None:
    words = words_of(command, save_photo(tmp_path / "dog.png"), weights)
    out = tmp_path / "out"
    assert visualize_(*words, "--out", out, "--format", "svg", "--dpi", "50") == 0
    with_heading = (out / f"{STEMS.get(command, 'dog')}.svg").read_text("utf-8")
    assert f"weights: {weights[command].name}" in with_heading
    name = tmp_path / "figure.SVG"
    assert visualize_(*words, "--out", name, "--no-heading", "--dpi", "50") == 0
    assert f"weights: {weights[command].name}" not in name.read_text("utf-8")
    assert "<text" in name.read_text("utf-8")


def test_the_ending_of_a_single_figure_chooses_its_format(tmp_path: Path) -> None:
    assert figure_path(Path("runs"), "cat") == Path("runs/cat.png")
    assert figure_path(Path("runs"), "cat", "pdf") == Path("runs/cat.pdf")
    for given in (None, "pdf"):
        assert figure_path(Path("runs/fig1.pdf"), "cat", given) == Path("runs/fig1.pdf")
    with pytest.raises(ValueError, match=r"ends in \.pdf and --format is svg"):
        figure_path(Path("runs/fig1.pdf"), "cat", "svg")
    (tmp_path / "v1.pdf").mkdir()
    assert figure_path(tmp_path / "v1.pdf", "cat") == tmp_path / "v1.pdf" / "cat.png"
    with pytest.raises(ValueError, match="names one figure, and 2 pictures"):
        name_targets(["a.jpg", "b.jpg"], Path("fig1.svg"))


@pytest.mark.parametrize(("dpi", "width"), [(None, 140), (300, 600)])
def test_dots_per_inch_are_those_that_were_asked_for(
    dpi: int | None, width: int, tmp_path: Path
) -> None:
    write_figure(Figure(figsize=(2, 1), dpi=70), tmp_path / "a.png", mark="", dpi=dpi)
    header = (tmp_path / "a.png").read_bytes()[16:24]
    assert struct.unpack(">II", header) == (width, width // 2)


@pytest.mark.parametrize(("dpi", "width"), [(None, 600), (150, 300)])
def test_rasters_in_a_vector_file_have_300_dots_an_inch(
    dpi: int | None, width: int, tmp_path: Path
) -> None:
    figure = Figure(figsize=(2, 1), dpi=70)
    figure.add_axes((0, 0, 1, 1)).imshow([[0.0, 1.0]], aspect="auto")
    write_figure(figure, tmp_path / "a.svg", mark="", dpi=dpi)
    (raster,) = re.findall(r"data:image/png;base64,([^\"]+)", (tmp_path / "a.svg").read_text())
    header = base64.b64decode(raster)[16:24]
    assert struct.unpack(">II", header) == pytest.approx((width, width // 2), abs=1)


def test_an_unknown_colour_map_is_refused_before_torch_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would fail
    with pytest.raises(SystemExit) as stop:
        visualize_("attention", "--cmap", "virdis")
    assert stop.value.code == 2 and "did you mean one of viridis" in capsys.readouterr().err


def test_one_name_for_two_photos_is_one_line(
    tmp_path: Path, weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [save_photo(tmp_path / name) for name in ("one.png", "other.png")]
    out = tmp_path / "a.pdf"
    words = ["attention", *photos, "--weights", weights["attention"], "--out", out]
    assert visualize_(*words) == 2
    assert "give a folder, and the format by --format pdf" in complaint(capsys)
