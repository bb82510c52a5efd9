"""A run folder: what a training leaves behind, each file written whole or not at all.

::

    recipe.toml         recipe and flags, merged; `--recipe RUN/recipe.toml` trains the same again
    environment.toml    versions, commit, device, command
    metrics.csv         one line an epoch       curves.png   the same as a picture
    best.safetensors    the best epoch          last.safetensors   the last one
    report.md           results, with pictures beside it        tensorboard/    event files
    state.pt            only while the run is unfinished: everything that --resume needs
"""

from __future__ import annotations

import csv
import dataclasses
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from minivit.files import replacing
from minivit.training.recipe_toml import read_recipe, to_toml
from minivit.training.recipes import defaults, with_new_names
from minivit.training.task import Epoch

INDIFFERENT = frozenset({"about", "recipe", "workers", "save_every"})  # they change no result
_PICTURES = ("curves.png", "attention.png", "positions.png", "confusion.png", "mistakes.png")
_EVENTS = "tensorboard/events.out.tfevents.*"


class RunFolderError(ValueError):
    """A run folder that cannot be used; the message says in one line what to do instead."""


class RunFolder:
    """The files of one run.

    Args:
        path: Folder; it is made when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last = path / "best.safetensors", path / "last.safetensors"
        self.state, self.report, self.recipe = (
            path / name for name in ("state.pt", "report.md", "recipe.toml")
        )

    def is_finished(self) -> bool:
        """Whether the run of this folder has ended."""
        return self.report.exists() and not self.state.exists()

    def check(
        self,
        recipe: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        data_known: bool = False,
    ) -> None:
        """Refuses a folder in which a run with this recipe may neither begin nor go on.

        Args:
            recipe: Recipe as `Recipe.to_dict` gives it.
            resume: Whether a run that is there goes on.
            overwrite: Whether a run that is there is replaced.
            data_known: Whether the state recognises its data by a digest, so that these, and the
                file that names their classes, may lie elsewhere now.

        Raises:
            RunFolderError: A run is there, and `resume` and `overwrite` are false; or it had
                another recipe; or this is no folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: a file, expected a folder; give another --out")
        if not self.recipe.exists():
            return
        if resume:
            now = with_new_names(read_text_recipe(recipe))
            # A run by older code knows fewer keys: they had the values that are the defaults now.
            added = {key: value for key, value in defaults(recipe).items() if key in now}
            before = read_text_recipe(added) | with_new_names(read_recipe(str(self.recipe)))
            indifferent = INDIFFERENT | ({"data", "labels"} if data_known else set())
            keys = (set(before) | set(now)) - indifferent
            for key in sorted(key for key in keys if before.get(key) != now.get(key)):
                raise RunFolderError(
                    f"{self.recipe}: {key} was {before.get(key)!r} in that run and is "
                    f"{now.get(key)!r} now: --resume goes on with the same settings only"
                )
        elif not overwrite:
            run, more = "an unfinished run", "go on with it (--resume), "
            if self.is_finished():
                run, more = "a finished run", ""
            raise RunFolderError(
                f"{self.path}: holds {run}: {more}replace it (--overwrite), or give another --out"
            )

    def begin(self, recipe: Mapping[str, Any], seed: int, device: torch.device) -> None:
        """Writes recipe and environment; removes the files of an earlier run, and no others."""
        self._remove_half_written()
        files = [self.path / name for name in ("metrics.csv", *_PICTURES)]
        files += [self.state, self.report, self.best, self.last, *self.path.glob(_EVENTS)]
        for path in files:
            path.unlink(missing_ok=True)
        write_text(self.recipe, to_toml(recipe))
        write_text(self.path / "environment.toml", to_toml(environment(seed, device)))

    def go_on(self, recipe: Mapping[str, Any]) -> str | None:
        """Has the recipe say where the data lie now, if they were moved since the run began.

        Returns:
            Where they lay before; None if they are where they were.
        """
        if not self.recipe.exists():
            return None
        before: str = read_recipe(str(self.recipe))["data"]
        if before == recipe["data"]:
            return None
        write_text(self.recipe, to_toml(recipe))
        return before

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes the state to resume from.

        Raises:
            OSError: It cannot be written, as on a full disk; the one before it stays.
        """
        try:
            with replacing(self.state) as temporary, temporary.open("wb") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__  # torch's error about a short file comes after the cause
            if cause is None:
                raise
            kept = "; the one before it is whole" if self.state.exists() else ""
            raise OSError(
                cause.errno or 0,
                f"{cause.strerror or cause}{kept}: make room, then --resume",
                str(self.state),
            ) from None

    def load_state(self) -> dict[str, Any] | None:
        """The state of an unfinished run; None where none was saved yet.

        Files that the run was writing when it was killed are removed.

        Raises:
            RunFolderError: The file is damaged.
        """
        self._remove_half_written()
        if not self.state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling and unzipping can raise anything
            raise RunFolderError(
                f"{self.state}: cannot be read ({type(error).__name__}): begin anew with "
                "--overwrite"
            ) from None
        return state

    def _remove_half_written(self) -> None:
        """Removes the temporary files of `minivit.files.replacing` that a killed process left."""
        for kind in ("toml", "csv", "png", "safetensors", "md", "pt"):
            for path in self.path.glob(f".*-????????.{kind}"):
                path.unlink()

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
