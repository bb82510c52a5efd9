"""Checks of lesson 7: whether a map tells the truth."""

from __future__ import annotations

__all__: list[str] = []
