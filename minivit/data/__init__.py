"""Where pictures come from: the built-in scenes and the readers of data on disk."""
