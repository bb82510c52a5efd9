"""Whether options apply to the source: one that does nothing is an error."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from weights_convert.catalogue import catalogue, timm_model
from weights_convert.reading import ConvertError

_OF_A_VIT = frozenset(("num_heads", "activation", "image_size", "pooling", "labels"))
_APPLY = {
    "catr": frozenset(("num_heads", "vocabulary")),
    "resnet": frozenset[str](),
    "dinov2": _OF_A_VIT | {"head"},
}
_FLAGS = {"vocabulary": "vocab"}


def check_options(format: str, where: str, **given: object) -> None:
    """Refuses options that this layout has no use for.

    Args:
        format: Layout of the source.
        where: Name of the file, for the message.
        **given: Options by the names of `convert`'s arguments; None: not given.

    Raises:
        ConvertError: An option that does not apply.
    """
    for name, value in given.items():
        if value is not None and name not in _APPLY.get(format, _OF_A_VIT):
            flag = _FLAGS.get(name, name).replace("_", "-")
            raise ConvertError(f"--{flag} does not apply to {where} ({format}); leave it away")


def check_name(name: str, format: str, *, format_is_given: bool = False) -> None:
    """Refuses a name that says nothing about a model of this layout.

    Args:
        name: Name that the user gave.
        format: Layout of the source.
        format_is_given: Whether the user gave that too: then a name of any layout may stand.

    Raises:
        ConvertError: An unknown name, or one of another layout; the message has the nearest ones.
    """
    plain = without_checksum(name)
    entries = [e for e in catalogue().values() if format_is_given or e.format == format]
    known = [entry.name for entry in entries]
    known += [entry.partition(".")[0] for entry in known]
    known += [without_checksum(Path(entry.file_name).stem) for entry in entries]
    if plain in known or (format == "timm" and timm_model(plain) is not None):
        return
    if format == "open_clip":  # of these names only the words count that tell the activation
        return
    nearest = difflib.get_close_matches(plain, known, n=3)
    hint = f"; the nearest are {', '.join(dict.fromkeys(nearest))}" if nearest else ""
    raise ConvertError(
        f"--name {name}: no published model of {format} is called so{hint} (leave --name away "
        "where the model has no published name)"
    )


def without_checksum(name: str) -> str:
    """A name without what file names add to it: the start of a checksum."""
    return re.sub(r"-[0-9a-f]{8}$", "", name)
