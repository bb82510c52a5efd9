"""Photos with labels: six layouts, recognised, checked, split and opened one by one.

- `dataset`: photos as tensors, opened and augmented when they are asked for
- `splits`: `read_photos` for training, `read_labelled` and `read_unlabelled` for a trained model
- `layouts`: which way of keeping photos a folder follows
- `folders`: which files in a folder are photos
- `class_names`: what the outputs mean of weights that do not name their classes
- `readers`: photos from a CSV file, from the lists of Oxford-IIIT Pets
- `idx_files`, `idx`: pictures from IDX files, as of MNIST and Fashion-MNIST
- `sets`: photos in order, with a line that describes them
- `masks`: where the object of a photo is, and the part of a cell that it covers
- `check`: the check that photos can be opened
"""
