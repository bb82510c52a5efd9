"""visualize.py score: what it writes for scenes and photos, and what it says about bad input."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
import visualize
from minivit.data.scenes.dataset import make_scene
from minivit.explain import METHODS
from tests.explain.scored_models import sharp

FILES = ["curves.csv", "curves.png", "scores.csv", "scores.md"]
FAST = ["--probes", "1", "--draws", "1", "--methods", "attention"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five scenes of 3:2, and their masks: two trimaps, the others of 0 and 1."""
    photos, masks = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("masks")
    for index in range(5):
        scene = make_scene(0, index, image_size=(66, 99))
        scene.image.save(photos / f"{index}.png")
        values = scene.objects[0].mask.astype(np.uint8)
        Image.fromarray(2 - values if index < 2 else values).save(masks / f"{index}.png")
    return photos, masks


def score(*words: object) -> int:
    return visualize.main(["score", *map(str, words)])


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on standard error, and nothing on standard output; bars are no complaints."""
    captured = capsys.readouterr()
    assert not captured.out and "Traceback" not in captured.err
    lines = [line for line in re.split(r"[\r\n]", captured.err) if "error: " in line]
    assert len(lines) == 1, captured.err
    return lines[0]


def test_scenes_are_scored_and_the_files_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert score("--limit", 3, "--heads", "--probes", 1, "--draws", 1, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == [str(out / name) for name in FILES]
    text = (out / "scores.md").read_text(encoding="utf-8")
    assert "3 built-in scenes that no training has seen" in text and "`scenes.safetensors`" in text
    rows = read(out / "scores.csv")
    names = [row["map"] for row in rows]
    heads = [f"attention, block 3, head {head}" for head in range(3)]
    chosen = "attention, block 3, the head chosen on the other half"
    methods = [name for name in METHODS if name not in ("random", "centre", "edges")]
    assert names == [*methods, *heads, chosen, "random", "centre", "edges"]
    for row in rows:
        assert (row["pictures"], row["probed"]) == ("3", "1")
        lines = [line for line in text.splitlines() if line.startswith(f"| {row['map']} |")]
        written = [float(number) for number in re.findall(r"\d+\.\d(?!\d)", lines[0])]
        figures = [float(row[f"pointing{end}"]) for end in ("", "_low", "_high")]
        assert written[:3] == pytest.approx([100 * figure for figure in figures], abs=0.051)
        assert "▼" in "".join(lines) if row["below_chance"] else "▼" not in "".join(lines)
    curves = read(out / "curves.csv")
    deletion = [row for row in curves if (row["map"], row["curve"]) == ("edges", "deletion")]
    assert [row["at"] for row in deletion[:2]] == ["0.00000", "0.05000"] and len(deletion) == 21
    with Image.open(out / "curves.png") as picture:
        assert picture.width > 1000


def test_photos_of_3_to_2_are_scored_beside_their_masks_and_again_the_same(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    photos, masks = folders
    written = []
    for name in ("first", "second"):
        out = tmp_path / name
        assert score("--data", photos, "--masks", masks, *FAST, "--out", out) == 0
        written.append([(out / file).read_bytes() for file in FILES if file.endswith("v")])
    assert written[0] == written[1]
    text = (tmp_path / "first" / "scores.md").read_text(encoding="utf-8")
    assert "5 photos" in text and "3 read as above 0, 2 read as trimap" in text
    assert str(tmp_path) not in text and str(photos) not in text
    row = read(tmp_path / "first" / "scores.csv")[0]
    middle = []  # the middle square is what the model sees
    for index in range(5):
        mask = make_scene(0, index, image_size=(66, 99)).objects[0].mask
        middle.append(mask[:, 16:-17].mean() / 2 + mask[:, 17:-16].mean() / 2)
    assert float(row["mass_chance"]) == pytest.approx(np.mean(middle), abs=1e-4)


def test_without_masks_there_is_no_table_beside_masks(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert score("--data", folders[0], "--limit", 2, *FAST, "--out", tmp_path) == 0
    text = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert "2 photos" in text and "Beside masks" not in text and "## Without masks" in text
    assert "pointing" not in read(tmp_path / "scores.csv")[0]


def test_a_map_below_chance_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(model: object, images: torch.Tensor, target: object = None) -> torch.Tensor:
        attention = METHODS["attention"](model, images)
        return attention.amax() - attention

    monkeypatch.setitem(METHODS, "elsewhere", elsewhere)
    words = ["--limit", 12, *FAST[:4], "--methods", "elsewhere,attention", "--out", tmp_path]
    assert score(*words) == 0
    text = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert text.splitlines()[8].startswith("| elsewhere | **") and " ▼**" in text
    below = {row["map"]: row["below_chance"] for row in read(tmp_path / "scores.csv")}
    assert "mass" in below["elsewhere"].split() and not below["attention"]


def test_methods_that_were_not_named_are_left_out_with_a_line(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = sharp(class_token=False, pooling="mean", num_register_tokens=0)
    weights = tmp_path / "plain.safetensors"
    minivit.save_model(model, weights)
    words = ["--weights", weights, "--data", folders[0], "--masks", folders[1], *FAST[:4]]
    assert score(*words, "--out", tmp_path / "out") == 0
    assert "left out: attention (the model has no class token" in capsys.readouterr().err
    names = [row["map"] for row in read(tmp_path / "out" / "scores.csv")]
    assert "attention" not in names and names[-3:] == ["random", "centre", "edges"]


def test_bad_input_is_answered_in_one_line_and_nothing_is_written(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = folders
    wrong, fewer, empty = (tmp_path / name for name in ("wrong", "fewer", "empty"))
    for folder in (wrong, fewer, empty):
        folder.mkdir()
    for path in masks.iterdir():
        (wrong / path.name).write_bytes(path.read_bytes())
        if path.stem != "3":
            (fewer / path.name).write_bytes(path.read_bytes())
    Image.new("L", (66, 99), 1).save(wrong / "4.png")
    plain = tmp_path / "plain.safetensors"
    minivit.save_model(sharp(class_token=False, pooling="mean", num_register_tokens=0), plain)
    beside = ["--data", photos, "--masks", masks]
    cases: list[tuple[list[object], str]] = [
        (["--data", photos, "--masks", wrong], "4.png: the mask is 66x99 and its photo 99x66"),
        (["--data", photos, "--masks", fewer], "1 photo of 5 without a mask: '3.png'"),
        (["--data", empty], "no photos in this folder"),
        (["--data", empty, "--masks", masks], "no photos in this folder"),
        (["--data", tmp_path / "nowhere"], "nowhere: no such file or folder"),
        (["--masks", masks], "the objects of scenes are known"),
        (["--methods", "rolout"], "no method is called 'rolout': choose from attention"),
        (["--weights", plain, "--methods", "attention"], "method attention: the model has no"),
        (["--weights", "scenes_captioner"], "holds a Captioner, score needs a VisionTransformer"),
        ([*beside, "--heads", "4"], "heads of block 4: choose from -4 to 3"),
        ([*beside, "--seed", "-1"], "seed is -1"),
        ([*beside, "--crop-fraction", "1.5"], "crop_fraction is 1.5"),
    ]  # fmt: skip
    for words, message in cases:
        assert score(*words, "--limit", 5, "--out", tmp_path / "out") == 2
        assert message in complaint(capsys), message
        assert not (tmp_path / "out").exists()
    assert score(*beside, "--out", photos) == 2
    assert "curves.png would lie among the pictures" in complaint(capsys)


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "curves.png").mkdir()
    assert score("--limit", 1, *FAST, "--out", tmp_path) == 2
    assert "curves.png" in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("words", [["--limit", "0"], ["--methods", "a,,b"], ["--probes", "x"]])
def test_flags_that_make_no_sense_end_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        score(*words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, visualize\n"
        "try: visualize.main(['score', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    start = time.process_time()
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.endswith("False False\n"), result.stdout + result.stderr
    assert time.process_time() - start < 0.5
