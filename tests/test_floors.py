"""The library is a house: CONTRIBUTING.md says who lives on which floor, this reads the imports.

A module may import its own floor and those below it, wherever in the file the import stands: at the
top, inside a function, or under TYPE_CHECKING. No circle of modules, and none of folders.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOOR = "minivit/__init__.py"  # hands out names of all floors, each when it is first asked for

Imports = dict[str, set[str]]


def read_floors(text: str) -> dict[str, int]:
    """Floor by file (`minivit/vit.py`) or folder (`minivit/data/`), from the table of floors.

    A name without a folder, as the later ones of a row, lies in `minivit/`.
    """
    table = text.split("## Layout: floors", 1)[1].split("\n## ", 1)[0]
    floors = {}
    for number, row in re.findall(r"^\| (\d) \| (.*) \|$", table, re.MULTILINE):
        for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", row):
            floors[name if name.startswith("minivit/") else f"minivit/{name}"] = int(number)
    return floors


def read_imports(root: Path) -> Imports:
    """Files of `minivit/` that each file of it imports, `a/b.py` -> {`a/c.py`, …}."""
    files = {path.relative_to(root).as_posix() for path in root.glob("minivit/**/*.py")}
    return {file: set(_imported(root, file, files)) - {file} for file in sorted(files)}


def _imported(root: Path, file: str, files: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            while parts and parts[0] == "minivit":  # a name in a module, a module, or a folder
                stem = "/".join(parts)
                if target := {f"{stem}.py", f"{stem}/__init__.py"} & files:
                    yield target.pop()
                    break
                parts.pop()


def floor_of(file: str, floors: Mapping[str, int]) -> int | None:
    """Floor of a file, by its own name or by the folder that it lies in."""
    places = [file, *(f"{folder.as_posix()}/" for folder in Path(file).parents)]
    return next((floors[place] for place in places if place in floors), None)


def complaints(imports: Imports, floors: Mapping[str, int]) -> list[str]:
    """What is wrong with the house: modules without a floor, imports upward, circles."""
    wrong = []
    for file, targets in imports.items():
        if file == DOOR:
            continue
        floor = floor_of(file, floors)
        if floor is None:
            wrong.append(f"{file}: on no floor of CONTRIBUTING.md")
            continue
        for target in sorted(targets - {DOOR}):
            above = floor_of(target, floors)
            if above is not None and above > floor:
                wrong.append(f"{file} (floor {floor}) imports {target} (floor {above})")
    inside = {file: targets - {DOOR} for file, targets in imports.items() if file != DOOR}
    wrong += [f"circle of modules: {' -> '.join(circle)}" for circle in circles(inside)]
    return wrong + [f"circle of rooms: {' -> '.join(each)}" for each in circles(rooms(inside))]


def rooms(imports: Imports) -> Imports:
    """Imports between rooms: a folder is one room, a file right in `minivit/` another.

    A folder's `__init__.py` is its door, and no part of the room: it hands out what is in the rooms
    behind it, which go in and out of the first one.
    """

    def room(file: str) -> str:
        path = Path(file)
        folder = path.parent.as_posix()
        return file if folder == "minivit" or path.name == "__init__.py" else f"{folder}/"

    between: Imports = {}
    for file, targets in imports.items():
        between.setdefault(room(file), set()).update(map(room, targets))
    return {here: targets - {here} for here, targets in between.items()}


def circles(imports: Imports) -> list[list[str]]:
    """Each way that leads back to where it began, by depth-first search; one for each way back."""
    ways: list[list[str]] = []
    done: set[str] = set()

    def visit(here: str, way: list[str]) -> None:
        if here in way:
            ways.append([*way[way.index(here) :], here])
        elif here not in done:
            for target in sorted(imports.get(here, ())):
                visit(target, [*way, here])
            done.add(here)

    for start in sorted(imports):
        visit(start, [])
    return ways


def test_the_house_stands() -> None:
    floors, imports = read_floors(CONTRIBUTING), read_imports(ROOT)
    assert len(imports) > 80 and max(floors.values()) >= 4
    assert complaints(imports, floors) == []


def test_every_name_in_the_table_is_there() -> None:
    assert [name for name in read_floors(CONTRIBUTING) if not (ROOT / name).exists()] == []


def test_what_stands_on_commands_does_not_climb_above_training() -> None:
    imports = read_imports(ROOT)
    commands = {file: t for file, t in imports.items() if file.startswith("minivit/commands/")}
    assert len(commands) >= 4
    assert not [t for targets in commands.values() for t in targets if "/training/" in t]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {"low.py": "def f():\n    from minivit.high import g\n", "high.py": ""},
            "minivit/low.py (floor 1) imports minivit/high.py (floor 2)",
        ),
        (
            {
                "low.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                "    import minivit.high\n",
                "high.py": "",
            },
            "minivit/low.py (floor 1) imports minivit/high.py (floor 2)",
        ),
        (
            {"low.py": "import minivit.room.a", "room/a.py": "from minivit import low"},
            "circle of modules: minivit/low.py -> minivit/room/a.py -> minivit/low.py",
        ),
        (
            {
                "low.py": "",
                "room/a.py": "import minivit.room.deep.b",
                "room/deep/b.py": "import minivit.room.c",
                "room/c.py": "",
            },
            "circle of rooms: minivit/room/ -> minivit/room/deep/ -> minivit/room/",
        ),
        ({"low.py": "", "stray.py": ""}, "minivit/stray.py: on no floor of CONTRIBUTING.md"),
    ],
)
def test_what_is_built_wrongly_is_seen(
    tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    for name, text in files.items():
        path = tmp_path / "minivit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    table = "| 2 | `minivit/high.py` |\n| 1 | `minivit/low.py`, `room/` |\n"
    floors = read_floors(f"## Layout: floors\n\n{table}\n## Next")
    assert complaint in complaints(read_imports(tmp_path), floors)


def test_a_house_in_order_has_no_complaints(tmp_path: Path) -> None:
    (tmp_path / "minivit").mkdir()
    (tmp_path / DOOR).write_text("def f():\n    import minivit.high\n")
    (tmp_path / "minivit" / "high.py").write_text("from minivit.low import x\nimport minivit\n")
    (tmp_path / "minivit" / "low.py").write_text("x = 1\n")
    floors = {"minivit/high.py": 2, "minivit/low.py": 1}
    assert complaints(read_imports(tmp_path), floors) == []
