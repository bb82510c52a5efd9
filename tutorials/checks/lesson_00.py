"""Checks of lesson 0: five minutes."""

from __future__ import annotations

__all__: list[str] = []
