"""What the tests of captioners share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.caption.recipes import VOCAB


@pytest.fixture
def vocab(tmp_path: Path) -> str:
    """A file of word-pieces."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCAB))
    return str(path)
