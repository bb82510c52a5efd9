"""The built-in data: drawn pictures whose objects, masks and captions are known.

- `dataset`: `make_scene` and `ScenesDataset`; the seeds of the splits
- `objects`: shapes, colours, sizes, and their arrangement
- `painting`: from an arrangement to pixels and masks
- `captions`: sentences about a scene, whose relations are true
"""
