"""What `visualize.py score` measured, in a few words a method, for where a method is named.

The table of the shipped weights lies beside them. It belongs to these weights alone, so they are
known by a digest of their numbers and not by a name, which other weights can have.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping

from minivit.explorer.gather import LIVE_WEIGHTS
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer
from minivit.weights import SHIPPED

KNOWN = {
    "76c98baffb58f944fb3bd9a4582b4a3feb5ff6090bdb5cec29a9423e888ff8e9": SHIPPED["scenes"].with_name(
        "scenes_scores.csv"
    ),
}
"""Table of scores by digest of the model. It is the scores.csv that the command in
`benchmarks/scores_scenes.md` writes, as it is."""


# The figure that says most, where there were masks and where there were none.
_FIGURES = {"pointing": "points {:.0f} %", "insertion": "insertion {:.0f} %"}


def score_words(lines: Iterable[str]) -> dict[str, str]:
    """The words of a table of scores.

    Args:
        lines: Lines of a scores.csv.

    Returns:
        A few words a map's name: "points 87 % (chance 24 %)", or "insertion 61 %" where the scores
        were made without masks.

    Raises:
        csv.Error, KeyError, TypeError, ValueError: It is another table.
    """
    return {row["map"]: _words(row) for row in csv.DictReader(lines)}


def known_scores(model: VisionTransformer, preprocess: Preprocess) -> dict[str, str]:
    """The words of the shipped table for this model; none for all others.

    Args:
        model: The model.
        preprocess: Transform of its pictures, of which scores depend too.
    """
    if sum(parameter.numel() for parameter in model.parameters()) > LIVE_WEIGHTS:
        return {}  # no shipped model is so large, and the digest of one takes its time
    path = KNOWN.get(digest(model, preprocess))
    if path is None:
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {name: f"{words} on scenes" for name, words in score_words(file).items()}


def digest(model: VisionTransformer, preprocess: Preprocess) -> str:
    """A digest of all that scores depend on: config, transform, and every weight by its name."""
    settings = {"config": model.config.to_dict(), "preprocess": preprocess.to_dict()}
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
    return total.hexdigest()


def _words(row: Mapping[str, str]) -> str:
    name = "pointing" if row.get("pointing") else "insertion"
    words = _FIGURES[name].format(100 * float(row[name]))
    chance = row.get(f"{name}_chance")
    return f"{words} (chance {100 * float(chance):.0f} %)" if chance else words
