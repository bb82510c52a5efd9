"""The course task of lesson 0, as its reader would copy it out of the notebook."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import minivit
from minivit.data.scenes.dataset import CLASS_NAMES, TEST_SEED, make_scene
from tests.tutorials.lessons import source_of
from tutorials.make_notebooks import notebook_of


def _functions() -> dict[str, Any]:
    """What the lesson's imports and function definitions define, without its other lines."""
    names: dict[str, Any] = {}
    for cell in notebook_of(source_of("00")).cells:
        code = cell.source
        if cell.cell_type == "code" and (
            "def " in code or "imports" in cell.metadata.get("tags", [])
        ):
            lines = code.split("\nmodel, is_real")[0].split("\nlines = ")[0]
            exec(lines, names)
    return names


def test_the_course_task_answers_for_pictures_only_and_writes_all_that_is_asked(
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a picture")
    scenes = {name: make_scene(TEST_SEED, i, image_size=96) for i, name in enumerate("ab")}
    for name, scene in scenes.items():
        scene.image.save(folder / f"{name}, big.png")
    course_task = _functions()["course_task"]
    captioner = minivit.load_model("scenes_captioner")
    course_task(folder, minivit.load_model("scenes"), captioner, out)
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["filename", "label"]
    assert rows[1:] == [[f"{n}, big.png", CLASS_NAMES[s.label]] for n, s in scenes.items()]
    pages = {f"{name}, big_{kind}.png" for name in scenes for kind in ("map", "words")}
    assert {path.name for path in out.iterdir()} == pages | {"predictions.csv", "positions.png"}
