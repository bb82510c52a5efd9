"""What train.py, visualize.py and weights_convert share with a terminal: flags, statuses, messages.

Nothing here imports `minivit.training`, and torch only when it is needed: --help answers at once.
"""
