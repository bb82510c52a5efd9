"""Checks of lesson 2: where each patch is."""

from __future__ import annotations

__all__: list[str] = []
