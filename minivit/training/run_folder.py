"""A run folder: what a training leaves behind, each file written whole or not at all.

::

    recipe.toml         recipe and flags, merged; `--recipe RUN/recipe.toml` trains the same again
    environment.toml    versions, commit, device, command
    metrics.csv         one line an epoch       curves.png   the same as a picture
    best.safetensors    the best epoch          last.safetensors   the last one
    report.md           results, with pictures beside it        tensorboard/    event files
    state.pt            only while the run is unfinished: everything that --resume needs
    minivit-run.json    the mark of a run folder: the files that it wrote, who is at work there
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import glob
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from minivit.files import TEMPORARY, refuse_inputs, replacing
from minivit.training.recipe_toml import parse_recipe, read_recipe, to_toml
from minivit.training.recipes import defaults, with_new_names
from minivit.training.run_mark import RunFolderError as RunFolderError
from minivit.training.run_mark import RunMark
from minivit.training.state_file import StateError, read_state, write_state
from minivit.training.task import Epoch

INDIFFERENT = frozenset({"about", "recipe", "workers", "save_every"})  # they change no result
_PICTURES = ("curves.png", "attention.png", "positions.png", "confusion.png", "mistakes.png")
_NAMES = (
    *("recipe.toml", "environment.toml", "metrics.csv", *_PICTURES),
    *("state.pt", "report.md", "best.safetensors", "last.safetensors"),
)
_EVENTS = "tensorboard/events.out.tfevents.*"


class RunFolder:
    """The files of one run.

    Args:
        path: Folder; it is made when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last = path / "best.safetensors", path / "last.safetensors"
        self.state, self.report, self.recipe, self._environment = (
            path / name for name in ("state.pt", "report.md", "recipe.toml", "environment.toml")
        )
        self._mark = RunMark(path)

    def is_finished(self) -> bool:
        """Whether the run of this folder has ended."""
        return self.report.exists() and not self.state.exists()

    # ---- what may begin --------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; what a killed one was writing there is removed.

        Raises:
            RunFolderError: A folder of somebody else, or another process is at work there.
            OSError: The folder cannot be made or written to.
        """
        self._refuse_foreign()
        with self._mark.locked():
            for name in self._mark.files() or ():
                pattern = TEMPORARY.format(
                    stem=glob.escape(Path(name).stem), chance="????????", suffix=Path(name).suffix
                )
                for path in self.path.glob(pattern):
                    path.unlink()
            yield

    def _refuse_foreign(self) -> None:
        """Refuses what is no folder, or a folder in which something lies that is no run.

        Raises:
            RunFolderError: Says what to do instead.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: a file, expected a folder; give another --out")
        if self.path.exists() and not self._files():
            others = sorted(each.name for each in self.path.iterdir() if each != self._mark.path)
            if others:
                raise RunFolderError(
                    f"{self.path}: is no run folder, and {others[0]!r} lies in it; give a new or "
                    "an empty folder with --out"
                )

    def _files(self) -> set[str]:
        """Names of the files that the run here wrote; none where there is no run.

        Runs of before have no mark. All of them have a recipe, and an environment or a state.
        """
        if files := self._mark.files():
            return {name for name in files if name in _NAMES or fnmatch(name, _EVENTS)}
        if self.recipe.exists() and (self.state.exists() or self._environment.exists()):
            return {*_NAMES, *self.event_files()}
        return set()

    def event_files(self) -> set[str]:
        """Names of the files of TensorBoard that lie here."""
        return {path.relative_to(self.path).as_posix() for path in self.path.glob(_EVENTS)}

    def add_files(self, names: Iterable[str]) -> None:
        """Adds names of files to those that the run wrote."""
        if names := set(names):
            self._mark.write(names | self._files())

    def check(
        self,
        recipe: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        state: Mapping[str, Any] | None = None,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        """Refuses a folder in which a run with this recipe may neither begin nor go on.

        Args:
            recipe: Recipe as `Recipe.to_dict` gives it.
            resume: Whether a run that is there goes on.
            overwrite: Whether a run that is there is replaced.
            state: State from which the run goes on, or None. Where it recognises its data by a
                digest, these, and the file that names their classes, may lie elsewhere now.
            inputs: Files and folders that the run reads.

        Raises:
            RunFolderError: A run is there, and `resume` and `overwrite` are false; or it had
                another recipe; or this is no run folder; or a file lies in it that a new run would
                write over.
            OutputIsInputError: A new run would remove one of its inputs.
        """
        self._refuse_foreign()
        files = self._files()
        there = {name for name in files if (self.path / name).exists()}
        if resume and (state is not None or "recipe.toml" in there):
            self._compare(recipe, state)
            return
        if there and not overwrite and not resume:
            run, more = "an unfinished run", "go on with it (--resume), "
            if self.is_finished():
                run, more = "a finished run", ""
            raise RunFolderError(
                f"{self.path}: holds {run}: {more}replace it (--overwrite), or give another --out"
            )
        refuse_inputs((self.path / name for name in sorted(there)), inputs)
        for name in _NAMES:
            if name not in files and (self.path / name).exists():
                raise RunFolderError(
                    f"{self.path / name}: the run that is there did not write it, and a new one "
                    "would write over it; move it elsewhere, or give another --out"
                )

    def _compare(self, recipe: Mapping[str, Any], state: Mapping[str, Any] | None) -> None:
        """Compares a recipe with that of the run; the state's is the one that it began with."""
        now = with_new_names(read_text_recipe(recipe))
        # A run by older code knows fewer keys: they had the values that are the defaults now.
        added = {key: value for key, value in defaults(recipe).items() if key in now}
        before = read_text_recipe(added) | with_new_names(self.recipe_before(state))
        data_known = "data" in (state or ())
        indifferent = INDIFFERENT | ({"data", "labels"} if data_known else set())
        keys = (set(before) | set(now)) - indifferent
        for key in sorted(key for key in keys if before.get(key) != now.get(key)):
            raise RunFolderError(
                f"{self.recipe}: {key} was {before.get(key)!r} in that run and is "
                f"{now.get(key)!r} now: --resume goes on with the same settings only"
            )

    def recipe_before(self, state: Mapping[str, Any] | None) -> dict[str, Any]:
        """The recipe that the run began with: the state's, or of older states recipe.toml.

        Raises:
            RunFolderError: Neither has one.
            RecipeError: recipe.toml is damaged.
        """
        if state is not None and isinstance(text := state.get("recipe"), str):
            return parse_recipe(text)
        if self.recipe.exists():
            return read_recipe(str(self.recipe))
        raise RunFolderError(
            f"{self.recipe}: is gone, and the state of that run, by an earlier minivit, does not "
            "tell its settings: put it back, or begin anew with --overwrite"
        )

    def begin(self, recipe: Mapping[str, Any], seed: int, device: torch.device) -> None:
        """Writes recipe and environment; removes the files of an earlier run, and no others."""
        before = self._files()
        self._mark.write({*_NAMES, *before})
        for name in before:
            (self.path / name).unlink(missing_ok=True)
        self._mark.write(_NAMES)
        write_text(self.recipe, to_toml(recipe))
        write_text(self._environment, to_toml(environment(seed, device)))

    def go_on(
        self, recipe: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> str | None:
        """Has the recipe say where the data lie now, if they were moved since the run began.

        Args:
            recipe: Recipe as `Recipe.to_dict` gives it.
            state: State from which the run goes on.

        Returns:
            Where they lay before; None if they are where they were.
        """
        if not self._mark.files():  # a run of before there was one
            self._mark.write(self._files())
        if state is None and not self.recipe.exists():
            return None
        before: str = self.recipe_before(state)["data"]
        if not self.recipe.exists() or before != recipe["data"]:
            write_text(self.recipe, to_toml(recipe))
        return before if before != recipe["data"] else None

    # ---- what it writes --------------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes the state to resume from.

        Raises:
            OSError: It cannot be written, as on a full disk; the one before it stays.
        """
        write_state(self.state, state)

    def load_state(self) -> dict[str, Any] | None:
        """The state of an unfinished run; None where none was saved yet.

        Raises:
            RunFolderError: The file is damaged.
        """
        if not self.state.exists():
            return None
        try:
            return read_state(self.state)
        except StateError as error:
            raise RunFolderError(f"{self.state}: {error}: begin anew with --overwrite") from None

    def write_report(self, report: str) -> None:
        """Writes the report; the state stays, so that the run can go on."""
        write_text(self.report, report)

    def finish(self, report: str) -> None:
        """Writes the report and removes the state: the run has ended."""
        self.write_report(report)
        self.state.unlink(missing_ok=True)

    def write_metrics(self, epochs: Sequence[Epoch]) -> None:
        """Writes one line an epoch; the columns are the fields of the epochs."""
        path = self.path / "metrics.csv"
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(field.name for field in dataclasses.fields(Epoch))
            for epoch in epochs:
                writer.writerow(
                    f"{value:.6g}" if isinstance(value, float) else value
                    for value in dataclasses.astuple(epoch)
                )


def read_text_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it would be read back from its file: tuples are lists."""
    return {
        key: [dict(each) if isinstance(each, Mapping) else each for each in value]
        if isinstance(value, tuple)
        else value
        for key, value in recipe.items()
    }


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def environment(seed: int, device: torch.device) -> dict[str, Any]:
    """Everything beside the recipe that a result can depend on: versions, commit, device, seed."""
    packages = {}
    for name in ("minivit", "torch", "numpy", "pillow", "einops", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # run from a clone that is not installed
            packages[name] = "not installed"
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "command": shlex.join([*map(os.path.basename, sys.argv[:1]), *sys.argv[1:]]),
        "seed": seed,
        "commit": _commit(),
        "python": platform.python_version(),
        **packages,
        "system": platform.platform(),
        "device": accelerator,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _commit() -> str:
    """The commit of the clone that holds this code, with a mark where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
