"""Arrays of numbers as text in a page, each found by its number, decoded when it is looked at."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE = 768 * 1024  # bytes in one element of the page: a browser reads pieces faster than one text
_KINDS = {"float32": "f4", "float16": "f2", "int16": "i2", "int8": "i1", "uint8": "u1"}


class Packed:
    """Arrays that go into a page; `add` gives what the page's document says of one."""

    def __init__(self) -> None:
        self._elements: list[str] = []
        self._count = 0

    def add(self, array: NDArray[Any]) -> dict[str, Any]:
        """Puts an array into the page.

        Args:
            array: Numbers of float32, float16, int16, int8 or uint8, in any shape.

        Returns:
            {"array": its number, "dtype", "shape", "bytes", "crc": CRC-32 of the bytes}.

        Raises:
            KeyError: Numbers of another kind.
        """
        kind = _KINDS[array.dtype.name]
        data = np.ascontiguousarray(array, dtype=f"<{kind}").tobytes()
        number = self._count
        self._count += 1
        for start in range(0, max(len(data), 1), _PIECE):
            text = base64.b64encode(data[start : start + _PIECE]).decode("ascii")
            self._elements.append(
                f'<script type="text/plain" data-array="{number}">{text}</script>'
            )
        return {
            "array": number,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "bytes": len(data),
            "crc": zlib.crc32(data),
        }

    def html(self) -> str:
        """The elements that hold the arrays, to stand at the end of the page."""
        return "\n".join(self._elements)
