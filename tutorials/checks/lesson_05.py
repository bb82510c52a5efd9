"""Checks of lesson 5: training and fine-tuning."""

from __future__ import annotations

__all__: list[str] = []
