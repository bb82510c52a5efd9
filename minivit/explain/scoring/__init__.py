"""How far a map can be trusted: beside truth, beside the model, and beside maps that know nothing.

`score.py` has the function `minivit.explain.scores`; the others are what it is made of.
"""
