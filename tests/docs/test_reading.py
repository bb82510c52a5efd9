"""The path of docs/reading.md is true: files have the lines it says and name the next station."""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
CLOSE_ENOUGH = 0.1  # of the stated number of lines

Station = tuple[str, int]


def code_lines(source: str) -> int:
    """Lines that hold code: without blank lines, comments and docstrings."""
    quiet = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def stages(text: str) -> list[list[Station]]:
    """(file, stated lines) by stage, from the numbered tables."""
    row = re.compile(r"^\| \[`([\w/.]+)`\]\(\.\./([\w/.]+)\) \| (\d+) \| .+ \|$", re.MULTILINE)
    found = []
    for stage in re.split(r"^\*\*\d\. ", text, flags=re.MULTILINE)[1:]:
        rows = row.findall(stage)
        assert all(name == link for name, link, _ in rows)
        found.append([(name, int(count)) for name, _, count in rows])
    return found


STAGES = stages(PAGE)
STATIONS = [station for stage in STAGES for station in stage]


def test_there_are_three_stages_in_the_order_in_which_a_picture_flows() -> None:
    assert len(STAGES) == 3 and all(len(stage) >= 4 for stage in STAGES)
    first = [Path(name).stem for name, _ in STAGES[0]]
    order = ["preprocess", "embeddings", "attention", "blocks", "vit", "maps"]
    assert [name for name in first if name in order] == order
    assert len({name for name, _ in STATIONS}) == len(STATIONS)


@pytest.mark.parametrize(("name", "stated"), STATIONS)
def test_a_file_has_as_many_lines_of_code_as_stated(name: str, stated: int) -> None:
    counted = code_lines((ROOT / name).read_text(encoding="utf-8"))
    assert abs(counted - stated) <= CLOSE_ENOUGH * stated, f"{name} has {counted} lines of code"


def test_the_path_of_the_vit_is_an_afternoon() -> None:
    """At 250 to 300 lines of code an hour; the sum stands in the text too."""
    total = sum(count for _, count in STAGES[0])
    stated = re.search(r"\*\*1\. [^\n]*?(\d[\d,]*) lines", PAGE)
    assert stated and abs(int(stated[1].replace(",", "")) - total) <= CLOSE_ENOUGH * total
    assert total <= 1100


@pytest.mark.parametrize("stage", range(3))
def test_each_file_names_the_next_station(stage: int) -> None:
    names = [name for name, _ in STAGES[stage]]
    for name, following in itertools.pairwise(names):
        docstring = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))) or ""
        last = docstring.split("\n\n")[-1].replace("\n", " ")
        assert last.startswith(f"Next: `{following}`"), f"{name} ends with {last!r}"


def test_counting_leaves_out_what_is_not_code() -> None:
    source = '"""A docstring\n\nof three lines."""\n\n# comment\nx = (\n    1,  # why\n\n)\n\n\n'
    source += 'def f():\n    """Says."""\n    return """two\nlines"""\n'
    assert code_lines(source) == 3 + 1 + 2
