"""Checks of lesson 9: a map for every word."""

from __future__ import annotations

__all__: list[str] = []
