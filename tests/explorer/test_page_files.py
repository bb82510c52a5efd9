"""The page's files are read by learners: no line is longer than a window is wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from minivit.explorer.document import _PAGE, INTERFACE, NUMERICS

LONGEST = 120


@pytest.mark.parametrize("path", sorted(_PAGE.glob("*.js")), ids=lambda path: path.name)
def test_no_line_of_a_script_is_long(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    long = [number for number, line in enumerate(lines, 1) if len(line) > LONGEST]
    assert not long, f"{path.name}: lines {long} have more than {LONGEST} letters"


def test_every_script_is_in_the_page() -> None:
    assert sorted(NUMERICS + INTERFACE) == sorted(path.name for path in _PAGE.glob("*.js"))
