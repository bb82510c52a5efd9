"""What is refused before torch is imported: files that are not there, and flags that need others.

That import takes seconds, and a mistyped path should not. What is in the files is a matter of who
reads them. A folder that is given as IMAGE becomes its photos here.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from minivit.weights import find_weights


def need_weights(weights: str | os.PathLike[str]) -> None:
    """Refuses weights that are not there.

    Args:
        weights: Name of shipped weights, or a file.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder; names a checkpoint in it where there is one.
    """
    path = find_weights(weights)
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        example = f", such as {inside[0]}" if inside else ""
        raise IsADirectoryError(f"{path}: a folder; give the .safetensors of a model{example}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the .safetensors of a minivit model")


def need_files(
    files: Iterable[str | os.PathLike[str] | None], *, known: Sequence[str] = ()
) -> None:
    """Refuses files and folders that are not there.

    Args:
        files: Paths; None or "": not given.
        known: Words that stand for something else than a file.

    Raises:
        FileNotFoundError: There is no such file or folder.
    """
    for file in files:
        if file and file not in known and not Path(file).exists():
            raise FileNotFoundError(f"{file}: no such file or folder; check the path")


def refuse_several(command: str) -> None:
    """Refuses a command that has to be one process.

    Args:
        command: Name of the command.

    Raises:
        ValueError: torchrun has started several processes.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(f"{command} is one process: start it without torchrun")


# ---- pictures ------------------------------------------------------------------------------------


def need_pictures(pictures: Sequence[str], *, all_of_them: bool = False) -> None:
    """Refuses photos none of which is there; one of several is named when its turn comes.

    Args:
        pictures: Paths of photos.
        all_of_them: Whether a single one that is not there is refused.

    Raises:
        FileNotFoundError: Names those that are not there, three at most.
    """
    missing = [path for path in pictures if not os.path.lexists(path)]
    if missing and (all_of_them or len(missing) == len(pictures)):
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" * (len(missing) > 3))
        raise FileNotFoundError(f"{names}: no such file; check the path")


def photos_of(pictures: Sequence[str]) -> list[str]:
    """The photos that are given, each folder replaced by those in it; says how many these are.

    Args:
        pictures: Files and folders, as IMAGE names them.

    Raises:
        ValueError: A folder that holds no photos, or cannot be read.
    """
    from minivit.data.photos.folders import folders_in, pictures_in

    photos: list[str] = []
    for given in pictures:
        folder = Path(given)
        if not folder.is_dir():
            photos.append(given)
            continue
        inside = pictures_in(folder)
        if not inside:
            deeper = folders_in(folder)
            hint = f"; those in it are not looked into: give {deeper[0]}" if deeper else ""
            raise ValueError(f"{given}: a folder without photos{hint}")
        print(f"{given}: {len(inside)} photo{'s' * (len(inside) > 1)}", file=sys.stderr)
        photos += map(str, inside)
    return photos


# ---- the commands of visualize.py ----------------------------------------------------------------


def check_inputs(arguments: argparse.Namespace) -> None:
    """Refuses what a command of visualize.py cannot use, and replaces folders of photos by these.

    Args:
        arguments: Parsed flags; `pictures` may change.

    Raises:
        ValueError: A folder without photos.
        OSError: A file or folder that is not there.
    """
    given = vars(arguments)
    need_weights(arguments.weights)
    need_files([given.get(name) for name in ("data", "masks", "scores")], known=["scenes"])
    if "pictures" in given:
        arguments.pictures = photos_of(arguments.pictures)
        if not arguments.debug:  # else the error of who opens them has the traceback
            need_pictures(arguments.pictures, all_of_them=arguments.command == "model")
