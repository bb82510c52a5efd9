"""Checks of lesson 8: from picture to sentence."""

from __future__ import annotations

__all__: list[str] = []
