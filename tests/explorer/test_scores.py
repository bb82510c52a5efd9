"""Scores beside the names of methods, from the table that `visualize.py score` writes."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
import visualize
from minivit.commands.score_words import read_scores
from minivit.explorer import write_page
from minivit.explorer.method_scores import KNOWN, known_scores
from minivit.vit import VisionTransformer
from tests.explorer.pages import opened

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of the command itself, on two scenes."""
    folder = tmp_path_factory.mktemp("scores")
    command = ["score", "--limit", "2", "--methods", "attention,value_norm", "--probes", "1"]
    assert visualize.main([*command, "--draws", "1", "--out", str(folder)]) == 0
    return folder / "scores.csv"


def test_the_commands_own_table_is_read(scores: Path) -> None:
    words = read_scores(scores)
    assert {"attention", "value_norm", "random", "centre", "edges"} <= set(words)
    lines = [line.split(",") for line in scores.read_text(encoding="utf-8").splitlines()]
    row = dict(zip(lines[0], lines[1], strict=True))
    share, chance = 100 * float(row["pointing"]), 100 * float(row["pointing_chance"])
    assert words[row["map"]] == f"points {share:.0f} % (chance {chance:.0f} %)"


def test_without_masks_the_insertion_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("map,pictures,deletion,insertion\nrollout,5,0.2,0.614\n", encoding="utf-8")
    assert read_scores(path) == {"rollout": "insertion 61 %"}


@pytest.mark.parametrize(
    "content",
    [b"filename,label\na.jpg,3\n", b"map,insertion\nrollout,much\n", b"\xff\xfe\x00", None],
)
def test_another_file_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path, out = tmp_path / "table.csv", tmp_path / "page.html"
    if content is not None:
        path.write_bytes(content)
    status = visualize.main(["explore", "--scenes", "1", "--scores", str(path), "--out", str(out)])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and str(path) in lines[0]
    assert not out.exists()


def test_the_table_is_not_overwritten(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = scores.read_bytes()
    command = ["explore", "--scenes", "1", "--scores", str(scores), "--out", str(scores)]
    assert visualize.main(command) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert scores.read_bytes() == before


def _table(title: str) -> dict[str, list[str]]:
    """Cells by map of a table in benchmarks/scores_scenes.md."""
    text = (ROOT / "benchmarks" / "scores_scenes.md").read_text(encoding="utf-8")
    lines = text.split(f"## {title}", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {name: cells for name, *cells in rows[2:]}


def test_the_shipped_figures_are_those_of_the_benchmark() -> None:
    (path,) = KNOWN.values()
    with path.open(encoding="utf-8", newline="") as file:
        shipped = {row["map"]: row for row in csv.DictReader(file)}
    truth, probes = _table("Beside masks"), _table("Without masks")
    assert set(shipped) == set(probes) == set(truth) - {"chance"}
    for name, row in shipped.items():
        columns = ["pointing", "mass", "precision"]
        columns += [f"{column}_untrained" for column in columns]
        for cells, names in ((truth[name], columns), (probes[name], ["deletion", "insertion"])):
            for cell, column in zip(cells, names, strict=False):
                written = [float(number) for number in re.findall(r"-?\d+\.\d", cell)]
                values = [100 * float(row[column + end]) for end in ("", "_low", "_high")]
                assert written == pytest.approx(values, abs=0.051), (name, column)
        chance = [f"{100 * float(row[f'{column}_chance']):.1f}" for column in columns[:3]]
        assert chance == [cell.split()[0] for cell in truth["chance"][:3]]


def test_the_shipped_model_is_known(scenes_model: VisionTransformer, tmp_path: Path) -> None:
    words = known_scores(scenes_model, scenes_model.preprocess)
    assert words["attention"] == "points 97 % (chance 12 %) on scenes"
    copy = tmp_path / "another_name.safetensors"
    minivit.save_model(scenes_model, copy)
    again = minivit.load_model(copy)
    assert known_scores(again, again.preprocess) == words


def test_other_weights_of_that_name_have_no_scores(
    scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    path = tmp_path / "scenes.safetensors"
    minivit.save_model(scenes_model, path)
    for change in ("weight", "config", "transform"):
        model = minivit.load_model(path)
        preprocess = model.preprocess
        if change == "weight":
            with torch.no_grad():
                model.head.bias[0] = torch.nextafter(model.head.bias[0], torch.tensor(1.0))
        elif change == "config":
            model.config = replace(model.config, num_heads=6)
        else:
            preprocess = replace(preprocess, crop_fraction=0.9)
        assert known_scores(model, preprocess) == {}, change


def test_the_table_goes_into_the_package() -> None:
    """Where Python reads TOML, the project's own list of data is asked."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "minivit"
    patterns = project["tool"]["setuptools"]["package-data"]["minivit"]
    packed = {path.resolve() for pattern in patterns for path in package.glob(pattern)}
    assert {path.resolve() for path in KNOWN.values()} <= packed


@pytest.mark.browser
def test_weights_that_are_dropped_get_no_foreign_scores(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    """A file of the same name, whose positions are other ones too."""
    page, path = tmp_path / "page.html", tmp_path / "scenes.safetensors"
    write_page(scenes_model, ["tutorials/photos/cat.jpg"], page, name=path.name)
    other = minivit.load_model("scenes")
    with torch.no_grad():
        other.pos_embed.copy_(other.pos_embed.flip(1))
    minivit.save_model(other, path)
    with opened(browser, page) as here:
        here.wait_until("passes.has(0)")
        assert "on scenes" in here.text("#methods small")
        assert here.page.evaluate("page.positions !== null")
        here.page.set_input_files("#files", [str(path)])
        here.wait_until("document.getElementById('progress').hidden && passes.has(0)")
        here.wait_until("!document.querySelector('#methods small')")
        assert here.page.evaluate("page.positions === null")


@pytest.mark.browser
def test_scores_stand_beside_the_methods(browser: Any, scores: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ["explore", "--scenes", "1", "--methods", "attention,value_norm,rollout"]
    assert visualize.main([*command, "--scores", str(scores), "--out", str(page)]) == 0
    words = read_scores(scores)
    with opened(browser, page) as here:
        here.wait_until("passes.has(0)")
        texts = here.page.eval_on_selector_all(
            "#methods button", "buttons => buttons.map((button) => button.textContent)"
        )
        assert texts == [
            f"attention{words['attention']}",
            f"value norm{words['value_norm']}",
            "rollout",
        ]
