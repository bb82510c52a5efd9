"""The bytes of the kernel are those of its readable source."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "minivit" / "explorer" / "page"


@pytest.mark.browser
def test_the_kernels_bytes_come_from_its_source() -> None:
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    source = (PAGE / "kernel.wat").read_text(encoding="utf-8")
    assert wasmtime.wat2wasm(source) == (PAGE / "kernel.wasm").read_bytes(), (
        "compile it again: python -m tests.explorer.make_kernel"
    )
