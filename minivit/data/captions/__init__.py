"""Pictures with captions: COCO, Flickr8k, a CSV file, or the built-in scenes.

- `dataset`: pictures and captions as tensors, and their batches
- `splits`: `read_captions`, and a part of the pictures held out
- `layouts`: which way of keeping captions a folder follows
- `readers`: the lines and entries of caption files
- `sets`: pictures and captions in order, with a line that describes them
"""
