"""The files of a run: what may begin where, and that a failure leaves them whole."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import random
import shlex
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from minivit.commands.terminal import one_line
from minivit.files import OutputIsInputError
from minivit.training.recipe_toml import read_recipe, to_toml
from minivit.training.recipes import ClassifyRecipe, make_recipe
from minivit.training.run_folder import RunFolder, RunFolderError, environment
from minivit.training.task import Epoch
from tests.training.photo_runs import ROOT
from tests.training.tasks import CPU

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def recipe(name: str = "pets_sgd", **values: Any) -> dict[str, Any]:
    return make_recipe(ClassifyRecipe, name, values).to_dict()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def begin(folder: RunFolder, asked: dict[str, Any] | None = None) -> None:
    folder.begin(asked or recipe(), 0, CPU)


def check(folder: RunFolder, asked: dict[str, Any] | None = None, **how: bool) -> None:
    folder.check(asked or recipe(), **({"resume": False, "overwrite": False} | how))


# ---- what may begin ------------------------------------------------------------------------------

WAYS = ({}, {"resume": True}, {"overwrite": True})


@pytest.mark.parametrize("how", WAYS)
def test_an_empty_folder_takes_a_run(folder: RunFolder, how: dict[str, bool]) -> None:
    check(folder, **how)
    folder.path.mkdir()
    check(folder, **how)
    with folder.locked():
        check(folder, **how)
    assert folder.load_state() is None and not folder.is_finished()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    "names",
    [["notes.txt"], [".hidden"], ["report.md", "best.safetensors", "state.pt"], ["recipe.toml"]],
)
def test_a_folder_of_somebody_else_is_refused(
    folder: RunFolder, names: list[str], how: dict[str, bool]
) -> None:
    """A file that is called as one of a run makes no run."""
    folder.path.mkdir()
    for name in names:
        (folder.path / name).write_text("my own")
    for refused in (lambda: check(folder, **how), lambda: folder.locked().__enter__()):
        with pytest.raises(RunFolderError, match=r"run: is no run folder, and '.*' lies in it"):
            refused()
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(names)


def test_what_a_new_run_would_write_over_is_named_before_anything(folder: RunFolder) -> None:
    begin(folder)
    mark = json.loads((folder.path / "minivit-run.json").read_text())
    mark["files"].remove("mistakes.png")
    (folder.path / "minivit-run.json").write_text(json.dumps(mark))
    (folder.path / "mistakes.png").write_text("my own")
    folder.finish("# done\n")
    with pytest.raises(RunFolderError, match=r"mistakes.png: the run that is there did not write"):
        check(folder, overwrite=True)
    check(folder, resume=True)


def test_an_input_that_the_new_run_would_remove_is_named(folder: RunFolder, tmp_path: Path) -> None:
    begin(folder)
    folder.best.write_bytes(b"weights")
    link = tmp_path / "link.safetensors"
    link.symlink_to(folder.best)
    for given in (folder.best, link, folder.path):
        with pytest.raises(OutputIsInputError, match=r"(best.safetensors|environment.toml): is an"):
            folder.check(recipe(), resume=False, overwrite=True, inputs=[given])
    folder.check(recipe(), resume=True, overwrite=False, inputs=[folder.best])


def test_a_name_outside_of_the_folder_is_never_removed(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    begin(folder)
    (folder.path / "notes.txt").write_text("mine")
    text = json.dumps({"files": ["../precious", "notes.txt", str(tmp_path / "precious")]})
    (folder.path / "minivit-run.json").write_text(text)
    begin(folder)
    assert (tmp_path / "precious").exists() and (folder.path / "notes.txt").exists()


def test_an_unfinished_run_is_not_touched_unasked(folder: RunFolder) -> None:
    begin(folder)
    for state in (None, {"step": 1}):
        if state is not None:
            folder.save_state(state)
        assert not folder.is_finished()
        with pytest.raises(RunFolderError) as error:
            check(folder)
        assert str(error.value) == (
            f"{folder.path}: holds an unfinished run: go on with it (--resume), replace it "
            "(--overwrite), or give another --out"
        )
        check(folder, resume=True)
        check(folder, overwrite=True)


def test_a_finished_run_is_not_touched_unasked(folder: RunFolder) -> None:
    begin(folder)
    folder.save_state({"step": 1})
    folder.finish("# done\n")
    assert folder.is_finished() and folder.report.read_text() == "# done\n"
    assert not folder.state.exists()
    with pytest.raises(RunFolderError) as error:
        check(folder)
    assert str(error.value) == (
        f"{folder.path}: holds a finished run: replace it (--overwrite), or give another --out"
    )
    check(folder, resume=True)  # there is nothing to do then
    check(folder, overwrite=True)


def test_killed_between_report_and_end_it_is_not_finished(folder: RunFolder) -> None:
    begin(folder)
    folder.save_state({"step": 1})
    folder.report.write_text("# done\n")
    assert not folder.is_finished()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr": 0.5}, "lr was 0.0003 in that run and is 0.5 now"),
        ({"seed": 3}, "seed was 0 in that run and is 3 now"),
        ({"data": "b"}, "data was 'a' in that run and is 'b' now"),
        ({"crop_scale": [0.5, 1]}, r"crop_scale was \[0.7, 1.0\] in that run and is \[0.5, 1.0\]"),
        ({"workers": 0}, ""),
        ({"save_every": 7}, ""),
        ({"about": "other words"}, ""),
    ],
)
def test_resuming_needs_the_same_settings(
    folder: RunFolder, values: dict[str, Any], said: str
) -> None:
    begin(folder, recipe(data="a"))
    asked = recipe(**({"data": "a"} | values))
    if said:
        with pytest.raises(RunFolderError, match=rf"recipe.toml: {said}.*: --resume goes on with"):
            check(folder, asked, resume=True)
    else:
        check(folder, asked, resume=True)
    check(folder, asked, overwrite=True)


def test_phases_are_settings_too(folder: RunFolder) -> None:
    begin(folder, recipe("pets_adam_sgd"))
    check(folder, recipe("pets_adam_sgd"), resume=True)
    other = recipe("pets_adam_sgd")
    other["phases"] = (other["phases"][0], {**other["phases"][1], "lr": 0.02})
    with pytest.raises(RunFolderError, match=r"phases was \[\{.* in that run and is \[\{.*0.02"):
        check(folder, other, resume=True)
    with pytest.raises(RunFolderError, match=r"lr was 0.0001 in that run and is 0.5 now"):
        check(folder, recipe("pets_adam_sgd", lr=0.5), resume=True)


def test_a_damaged_recipe_is_named(folder: RunFolder) -> None:
    begin(folder)
    folder.recipe.write_bytes(b"\x00\xff")
    with pytest.raises(ValueError, match=r"run.recipe.toml: not a TOML file"):
        check(folder, resume=True)
    check(folder, overwrite=True)


@pytest.mark.parametrize("how", WAYS)
def test_a_file_is_no_folder(folder: RunFolder, how: dict[str, bool]) -> None:
    folder.path.write_text("mine")
    with pytest.raises(RunFolderError, match=r"run: a file, expected a folder; give another --out"):
        check(folder, **how)
    assert folder.path.read_text() == "mine"


# ---- beginning -----------------------------------------------------------------------------------


def test_a_run_takes_away_all_of_the_run_before_it_and_nothing_else(folder: RunFolder) -> None:
    begin(folder)
    names = (
        "metrics.csv", "curves.png", "attention.png", "positions.png", "confusion.png",
        "mistakes.png", "best.safetensors", "last.safetensors", "report.md", "state.pt",
        "recipe.toml", "environment.toml", "tensorboard/events.out.tfevents.1.vm.2.0",
    )  # fmt: skip
    own = (
        "notes.txt", "photo.png", "best of all.safetensors", "tensorboard/notes.txt", ".hidden",
        ".report-20261127.md", "tensorboard/events.out.tfevents.9.copied",
    )  # fmt: skip
    (folder.path / "tensorboard").mkdir(parents=True)
    for name in (*names, *own):
        (folder.path / name).write_text("old")
    folder.add_files(["tensorboard/events.out.tfevents.1.vm.2.0"])
    begin(folder)
    found = {
        str(path.relative_to(folder.path)): path.read_text()
        for path in folder.path.rglob("*")
        if path.is_file()
    }
    assert set(found) == {*own, "recipe.toml", "environment.toml", "minivit-run.json"}
    assert all(found[name] == "old" for name in own)
    assert "old" not in (found["recipe.toml"], found["environment.toml"])


def test_the_saved_recipe_asks_for_the_same_again(folder: RunFolder) -> None:
    asked = make_recipe(ClassifyRecipe, "pets_adam_sgd", {"lr": 0.5, "data": 'a "b"'})
    begin(folder, asked.to_dict())
    assert make_recipe(ClassifyRecipe, str(folder.recipe)) == asked
    assert read_recipe(str(folder.recipe))["task"] == "classify"


def test_the_environment_says_what_a_result_depends_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", 'a "place" with spaces', "--set", "about='x\ny'"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", *words])
    monkeypatch.setenv("WORLD_SIZE", "2")
    folder.begin(recipe(), 17, CPU)
    found = tomllib.loads((folder.path / "environment.toml").read_text(encoding="utf-8"))
    assert (found["seed"], found["processes"], found["device"]) == (17, 2, "cpu")
    for name in ("torch", "numpy", "pillow", "einops", "safetensors"):
        assert found[name] == version(name)
    assert found["python"].split(".")[:2] == list(map(str, sys.version_info[:2]))
    assert shlex.split(found["command"]) == ["train.py", *words]


def test_the_commit_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    git = subprocess.run(asked, capture_output=True, text=True)
    monkeypatch.chdir(tmp_path)
    if git.returncode == 0:
        assert git.stdout.strip() in environment(0, CPU)["commit"]
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    assert environment(0, CPU)["commit"] == "unknown"


# ---- the state -----------------------------------------------------------------------------------


def test_a_state_comes_back(folder: RunFolder) -> None:
    state = {"weights": {"a": torch.arange(6.0)}, "place": [0, 1, 2], "average": None, "s": 1.5}
    folder.save_state(state)
    folder.save_state(state | {"s": 2.5})
    found = folder.load_state()
    assert found is not None and found["s"] == 2.5 and found["place"] == [0, 1, 2]
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"]


FULL = """
    import resource, signal, sys
    from pathlib import Path
    import torch
    from minivit.commands.terminal import one_line
    from minivit.training.run_folder import RunFolder

    folder = RunFolder(Path(sys.argv[1]))
    if "first" in sys.argv:
        folder.save_state({"value": torch.zeros(10)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    for length in (17_000, 2_000_000):  # fails when the file is closed, and long before
        try:
            folder.save_state({"value": torch.ones(length)})
        except OSError as error:
            print(error.errno, one_line(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the size of files cannot be limited there")
@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_state_before_it(folder: RunFolder, first: bool) -> None:
    """In a process of its own, which may write 60 kB a file."""
    words = [sys.executable, "-c", textwrap.dedent(FULL), str(folder.path), *["first"] * first]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    kept = "; the one before it is whole" if first else ""
    reason = f"{os.strerror(errno.EFBIG)}{kept}: make room, then --resume"
    line = f"{errno.EFBIG} error: {folder.state}: {reason}"
    assert done.stdout.splitlines() == [line, line], done.stderr
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"] * first
    found = folder.load_state()
    if first:
        assert found is not None and torch.equal(found["value"], torch.zeros(10))
    else:
        assert found is None


def test_a_folder_that_cannot_be_made_is_named(folder: RunFolder) -> None:
    folder.path.write_text("a file")
    with pytest.raises(OSError) as error:
        folder.save_state({"value": 1})
    assert one_line(error.value).startswith(f"error: {folder.state}: ")


def test_what_is_no_fault_of_the_disk_is_not_called_one(folder: RunFolder) -> None:
    class Broken:
        def __reduce__(self) -> Any:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        folder.save_state({"value": Broken()})
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "code"])
def test_a_damaged_state_is_refused_in_one_line(folder: RunFolder, damage: str) -> None:
    folder.save_state({"value": torch.ones(1000)})
    whole = folder.state.read_bytes()
    if damage == "code":  # a pickle that would call something
        torch.save(os.getcwd, folder.state)
    else:
        damaged = {"cut": whole[:2000], "empty": b"", "noise": b"\x93" * 999}
        folder.state.write_bytes(damaged[damage])
    said = r"state.pt: (cannot be read \(\w+\)|holds a \w+): .*--overwrite"
    with pytest.raises(RunFolderError, match=said) as error:
        folder.load_state()
    assert "\n" not in str(error.value)


def test_what_a_killed_process_left_half_written_is_taken_away(folder: RunFolder) -> None:
    begin(folder)
    folder.save_state({"value": 1})
    before = {path.name for path in folder.path.iterdir()}
    own = ".report-20261127.md"
    half = (".state.minivit-a_b1c2d3.pt", ".best.minivit-00000000.safetensors")
    for name in (*half, own):
        (folder.path / name).write_bytes(b"half")
    assert folder.load_state() == {"value": 1}  # takes nothing away: another may be at work
    assert {path.name for path in folder.path.iterdir()} == {*before, *half, own}
    with folder.locked():
        assert {path.name for path in folder.path.iterdir()} == {*before, own}


def test_a_process_that_dies_while_it_writes_leaves_what_is_taken_away(folder: RunFolder) -> None:
    begin(folder)
    before = {path.name for path in folder.path.iterdir()}
    script = (
        "import os, sys\nfrom minivit.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder.best)], cwd=ROOT, check=False)
    assert len(list(folder.path.iterdir())) == len(before) + 1
    with folder.locked():
        assert {path.name for path in folder.path.iterdir()} == before


def test_any_bit_that_is_turned_is_noticed(folder: RunFolder) -> None:
    """In the tensors, where torch.load sees none, in the zip's own bytes, and in the digest."""
    state = {"value": torch.arange(50.0), "recipe": "lr = 0.1\n"}
    folder.save_state(state)
    whole = folder.state.read_bytes()
    rng = random.Random(0)
    places = [rng.randrange(len(whole)) for _ in range(150)] + list(range(-85, 0))
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        folder.state.write_bytes(damaged)
        with pytest.raises(RunFolderError, match=r"state.pt: cannot be read .*--overwrite"):
            folder.load_state()
    folder.state.write_bytes(whole)
    assert folder.load_state() is not None


def test_the_recipe_of_the_state_is_the_one_that_the_run_began_with(folder: RunFolder) -> None:
    """Also where recipe.toml is gone, or was changed since."""
    asked = recipe(data="a")
    begin(folder, asked)
    state = {"recipe": to_toml(asked), "data": {}}
    text = folder.recipe.read_text()
    for change in (folder.recipe.unlink, lambda: folder.recipe.write_text("lr = 7.0\n")):
        change()
        with pytest.raises(RunFolderError, match=r"lr was 0.0003 in that run and is 0.5 now"):
            folder.check(recipe(data="a", lr=0.5), resume=True, overwrite=False, state=state)
        folder.check(asked, resume=True, overwrite=False, state=state)
    folder.recipe.unlink()
    assert folder.go_on(asked, state) is None and folder.recipe.read_text() == text
    folder.recipe.unlink()
    with pytest.raises(RunFolderError, match=r"recipe.toml: is gone, and the state of that run"):
        folder.check(asked, resume=True, overwrite=False, state={"value": 1})


# ---- figures -------------------------------------------------------------------------------------


def test_metrics_are_one_line_an_epoch(folder: RunFolder) -> None:
    epochs = [Epoch(1, 1e-4, 2 / 3, 1.25, 0.5, 12.3456789), Epoch(2, 0.0, 1e-9, 3.0, 1.0, 99999.5)]
    folder.write_metrics(epochs[:1])
    folder.write_metrics(epochs)
    with (folder.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Epoch)]
    assert list(rows[0].values()) == ["1", "0.0001", "0.666667", "1.25", "0.5", "12.3457"]
    assert list(rows[1].values()) == ["2", "0", "1e-09", "3", "1", "99999.5"]
