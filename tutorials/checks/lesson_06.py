"""Checks of lesson 6: reading attention maps."""

from __future__ import annotations

__all__: list[str] = []
