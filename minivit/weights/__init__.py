"""The weights inside the package, by name: `minivit.load_model("scenes")` loads them.

`scenes_scores.csv` beside them is what `visualize.py score` measured on the first.
"""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = {
    name: Path(__file__).with_name(f"{name}.safetensors") for name in ("scenes", "scenes_captioner")
}
"""Path of each shipped file: a ViT that classifies scenes, and a captioner of scenes."""


def weights_title(path: Path) -> str:
    """Words by which a figure names the weights that drew it: a file, of a run the run too."""
    if path in SHIPPED.values():
        return f"{path.name}, shipped with minivit"
    if path.stem in ("best", "last"):  # as the checkpoints of every run are called
        return f"{path.absolute().parent.name}/{path.name}"
    return path.name


def find_weights(name: str | os.PathLike[str]) -> Path:
    """The path of shipped weights by their name, else the path as given; `./scenes` is a file."""
    if isinstance(name, str) and name in SHIPPED:
        return SHIPPED[name]
    return Path(name)
