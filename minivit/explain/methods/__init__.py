"""One module a method, and `table.py`, which has them all by name."""
