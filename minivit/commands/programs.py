"""minivit-train and minivit-visualize, the commands of an installation: train.py and visualize.py.

These two lie on top of a clone, where they are read, and not in a package. A wheel brings them as
data files, into share/minivit; an editable installation runs those of its clone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # of a clone, or site-packages


def train() -> int:
    """Runs train.py; returns its exit status."""
    return int(load(find_script("train.py")).main())


def visualize() -> int:
    """Runs visualize.py; returns its exit status."""
    return int(load(find_script("visualize.py")).main())


def find_script(name: str, root: Path = ROOT) -> Path:
    """The file of a script, in the clone or as it was installed.

    Args:
        name: Name of the file.
        root: Folder that the library lies in.

    Raises:
        FileNotFoundError: The installation has no such file.
    """
    if (root / "pyproject.toml").is_file():
        return root / name
    installed = importlib.metadata.files("minivit") or ()
    places = [Path(str(file.locate())) for file in installed if file.name == name]
    places.append(root / "share" / "minivit" / name)  # of pip install --target, whose list is wrong
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"{name} is missing in this installation: install minivit again")


def load(path: Path) -> Any:
    """The module in a file, under a name that no other module has."""
    spec = importlib.util.spec_from_file_location(f"minivit_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pickle and dataclasses look
    spec.loader.exec_module(module)
    return module
