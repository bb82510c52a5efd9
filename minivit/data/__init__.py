"""The data: scenes that are drawn, and the readers of photos and captions on a disk.

- `scenes/`: the built-in data, drawn pictures whose objects, masks and captions are known
- `photos/`: photos with labels in folders, lists or IDX files
- `captions/`: pictures with captions, from COCO, Flickr8k, a CSV file or the scenes
- `augmentation/`: the random transforms of training photos
- `seeds`: which numbers a random choice is drawn from; the contract of repeatability
- `loading`: batches made by worker processes, or a whole data set at once
- `text_files`: what the readers of photos and captions share: text, lines, names, words for splits
- `errors`: `BadDataError`, how a data set is refused
"""
