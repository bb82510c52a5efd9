"""Checks of lesson 10: taking a model apart."""

from __future__ import annotations

__all__: list[str] = []
