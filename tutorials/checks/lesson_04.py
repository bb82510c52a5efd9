"""Checks of lesson 4: the block and the model."""

from __future__ import annotations

__all__: list[str] = []
