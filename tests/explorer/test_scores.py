"""Scores beside the names of methods, from the table that `visualize.py score` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import visualize
from minivit.commands.score_words import read_scores
from tests.explorer.pages import opened


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
    assert status == 2 and len(lines) == 1 and f"--scores {path}" in lines[0]
    assert not out.exists()


def test_the_table_is_not_overwritten(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = scores.read_bytes()
    command = ["explore", "--scenes", "1", "--scores", str(scores), "--out", str(scores)]
    assert visualize.main(command) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert scores.read_bytes() == before


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
