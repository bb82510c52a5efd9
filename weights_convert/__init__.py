"""Public checkpoints to minivit checkpoints, exact to 1e-4, without the library they came from.

`python -m weights_convert INPUT -o OUT.safetensors` is the command; README.md beside this file
lists the sources and how far each agrees.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weights_convert.conversion import Converted as Converted
    from weights_convert.conversion import convert as convert
    from weights_convert.exporting import export as export
    from weights_convert.reading import ConvertError as ConvertError

# Imported when first used, so that the command answers --help without waiting for torch.
_HOME = {
    "convert": "conversion",
    "Converted": "conversion",
    "export": "exporting",
    "ConvertError": "reading",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"weights_convert.{_HOME[name]}"), name)
    raise AttributeError(f"module 'weights_convert' has no attribute {name!r}")
