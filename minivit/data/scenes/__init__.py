"""The built-in data: drawn pictures whose objects, masks and captions are known."""
