"""What train.py, visualize.py and weights_convert share with a terminal: flags, statuses, messages.

`programs` is what `minivit-train` and `minivit-visualize` start. Nothing here imports
`minivit.training`, and torch only when it is needed: --help answers at once.
"""
