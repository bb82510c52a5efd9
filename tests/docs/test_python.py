"""Python of the pages and of docstrings runs as it is written, in a fresh clone.

Every block is executed, in the order of the text and in one scope, as somebody would who types it
line by line: with the weights that are shipped and the pictures that are there.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
from minivit import config

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
SHIPPED = ("README.md", "docs", "tutorials/photos")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples may open, to stand in."""
    for name in SHIPPED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_blocks(markdown: str) -> list[str]:
    """The blocks ```python of a page."""
    return re.findall(r"^```python\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


def docstring_examples() -> list[tuple[str, str]]:
    """(file, code) of each literal block of a module's, class's or function's docstring that calls
    what `minivit` or its package explain hands out."""
    public = {*minivit.__all__, *minivit.explain.__all__}
    examples = []
    for path in sorted((ROOT / "minivit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                continue
            text = (ast.get_docstring(node) or "") + "\n"
            for block in re.findall(r"::\n\n((?:(?: {4}.*)?\n)+)", text):
                code = textwrap.dedent(block).strip()
                if called_names(code) & public:
                    examples.append((path.relative_to(ROOT).as_posix(), code))
    return examples


def called_names(code: str) -> set[str]:
    """Names of the functions that are called in a text; none where it is no Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return set()
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {ast.unparse(function).rpartition(".")[2] for function in calls}


WITH_PYTHON = [page for page in PAGES if python_blocks((ROOT / page).read_text(encoding="utf-8"))]


def test_four_pages_have_python() -> None:
    assert {"README.md", "docs/attention.md", "docs/captions.md", "docs/maps.md"} <= {*WITH_PYTHON}


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_a_page_runs_from_top_to_bottom(page: str, clone: Path) -> None:
    before = set(clone.rglob("*"))
    scope: dict[str, Any] = {}
    for block in python_blocks((clone / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), scope)
    if "rows" in scope and page != "docs/attention.md":
        assert "relevance" in {row.name for row in scope["rows"]}
    if "caption" in scope:
        assert scope["caption"].words[1].attention.sum() == pytest.approx(1, abs=1e-5)
    made = {path.name for path in set(clone.rglob("*")) - before}
    assert made == ({"page.html"} if page == "README.md" else set())


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_a_page_opens_what_a_clone_has(page: str) -> None:
    """Each text in its Python that looks like a file is one."""
    for block in python_blocks((ROOT / page).read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value:
                assert (ROOT / node.value).exists(), node.value


def test_docstrings_hold_examples() -> None:
    rooms = [name.removeprefix("minivit/explain/") for name, _ in docstring_examples()]
    assert rooms == ["inside/intervene.py", "region.py"]


@pytest.mark.parametrize(("name", "code"), docstring_examples())
def test_an_example_of_a_docstring_runs(name: str, code: str, clone: Path) -> None:
    """With what it takes for granted: a model, pictures of it, and others."""
    model = minivit.load_model("scenes")
    photos = [minivit.open_image(path) for path in sorted(clone.glob("tutorials/photos/*.jpg"))]
    images = torch.stack([model.preprocess(photo) for photo in photos])
    scope: dict[str, Any] = {public: getattr(minivit, public) for public in minivit.__all__}
    scope |= {public: getattr(minivit.explain, public) for public in minivit.explain.__all__}
    scope |= {"model": model, "images": images, "others": images.flip(0), "photo": photos[0]}
    before = model(images)
    exec(compile(code, name, "exec"), scope)
    assert torch.equal(model(images), before)


def short_ways() -> list[str]:
    """Calls that the docstrings of configs name in passing."""
    docstrings = (config.ViTConfig.__doc__ or "", config.CaptionerConfig.__doc__ or "")
    return [
        re.findall(r"^ +`(.+\))` is the short way", text, re.MULTILINE)[0] for text in docstrings
    ]


@pytest.mark.parametrize("example", short_ways())
def test_the_short_way_to_a_config_runs(example: str) -> None:
    scope = {"minivit": minivit, "dataclasses": dataclasses, "ViTConfig": minivit.ViTConfig}
    assert isinstance(eval(example, scope), (config.ViTConfig, config.CaptionerConfig))
