"""Checks of lesson 3: attention by hand."""

from __future__ import annotations

__all__: list[str] = []
