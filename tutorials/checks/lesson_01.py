"""Checks of lesson 1: pixels to tokens."""

from __future__ import annotations

__all__: list[str] = []
