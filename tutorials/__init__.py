"""Numbered lessons on the inside of attention, and the checks of their exercises."""
