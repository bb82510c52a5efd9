"""Every lesson runs in a fresh kernel, and its committed notebook comes from its present source."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.tutorials.lessons import solution
from tutorials.checks import EXERCISES
from tutorials.make_notebooks import execute, is_current, notebook_of, sources, without_solutions

LESSONS = sources()
lesson = pytest.mark.parametrize("source", LESSONS, ids=[path.stem for path in LESSONS])
# Where a machine's own folders begin, and what torch, Jupyter and pip say of places.
_OWN_PLACE = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|[A-Z]:\\\\|site-packages|ipykernel_)")


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def _assert_clean(notebook: NotebookNode) -> None:
    """No warning, no error, and no path of a machine in what the cells show."""
    for output in _outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output["text"]
        shown = json.dumps({k: v for k, v in output.items() if k != "data"}) + json.dumps(
            {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        )
        assert not _OWN_PLACE.search(shown), shown[:300]


def _run(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as tests/conftest.py has it for the others
    notebook = notebook_of(source)
    execute(notebook)
    _assert_clean(notebook)
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
@lesson
def test_a_lesson_runs_with_the_shipped_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no weights of make real there
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody answers there
    _run(source, monkeypatch)


@pytest.mark.parity
@lesson
def test_a_lesson_runs_with_the_weights_of_make_real(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "real_or_shipped" not in source.read_text(encoding="utf-8"):
        return  # nothing in it would differ from the run with the shipped weights
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    _run(source, monkeypatch)


@lesson
def test_the_committed_notebook_comes_from_the_source(source: Path) -> None:
    assert is_current(source), "run make tutorials"
    path = source.with_suffix(".ipynb")
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    _assert_clean(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count, "every cell was run"
            assert "execution" not in cell.metadata  # times
    if "real_or_shipped" in source.read_text(encoding="utf-8"):
        text = "".join(output.get("text", "") for output in _outputs(notebook))
        assert "Weights: DINOv2 ViT-S/14" in text, "committed outputs are those of the real model"


@lesson
def test_an_exercise_has_a_stub_a_hint_a_solution_and_a_check(source: Path) -> None:
    number = str(int(source.name[:2]))
    checks = {n for n in EXERCISES if n.split(".")[0] == number}
    by_role: dict[str, list[str]] = {"stub": [], "hint": [], "solution": []}
    for cell in notebook_of(source).cells:
        for role in set(by_role) & set(cell.metadata.get("tags", [])):
            by_role[role].append(cell.metadata["exercise"])
            if role != "stub":
                assert cell.source.startswith("<details>"), "hints and solutions are folded"
    assert len(checks) >= (0 if number == "0" else 3)
    assert sorted(by_role["stub"]) == sorted(by_role["solution"]) == sorted(checks)
    assert set(by_role["hint"]) == checks
    for exercise in checks:
        assert solution(source.name[:2], exercise)


@lesson
def test_a_lesson_ends_with_questions_errors_and_sources(source: Path) -> None:
    if source.name.startswith("00"):
        return
    text = source.read_text(encoding="utf-8")
    headings = re.findall(r"^# ## (.+)$", text, flags=re.MULTILINE)
    assert headings[-3:] == ["Questions", "What people get wrong", "Sources"]
    questions = text.partition("# ## Questions")[2].partition("# ## What people")[0]
    assert questions.count("<details>") == 3


def test_ids_of_cells_stay_when_a_cell_is_added(tmp_path: Path) -> None:
    first = tmp_path / "20_a.py"
    first.write_text("# %%\nx = 1\n\n# %%\nx = 1\n\n# %%\ny = 2\n")
    ids = [cell.id for cell in notebook_of(first).cells]
    assert len(set(ids)) == 3
    first.write_text("# %%\nz = 0\n\n" + first.read_text())
    assert [cell.id for cell in notebook_of(first).cells][1:] == ids


def test_a_notebook_made_again_is_the_same(tmp_path: Path) -> None:
    source = tmp_path / "20_a.py"
    source.write_text("# %% [markdown]\n# Text\n\n# %%\nprint(1 + 1)\n")
    notebooks = [notebook_of(source) for _ in range(2)]
    for notebook in notebooks:
        execute(notebook, tmp_path)
    assert notebooks[0] == notebooks[1]
    nbformat.write(notebooks[0], source.with_suffix(".ipynb"))
    assert is_current(source)
    source.write_text(source.read_text().replace("1 + 1", "1 + 2"))
    assert not is_current(source)


def test_exercises_have_no_solutions(tmp_path: Path) -> None:
    source = tmp_path / "20_a.py"
    source.write_text(
        '# %% exercise="20.1" tags=["stub"]\nanswer = ...\n\n'
        '# %% [markdown] exercise="20.1" tags=["solution"]\n# secret\n'
    )
    stripped = without_solutions(notebook_of(source))
    assert [cell.source for cell in stripped.cells] == ["answer = ..."]
    assert os.fspath(source.with_suffix(".ipynb")) not in os.listdir(tmp_path)
