"""Random transforms of training photos; equal parameters give torchvision's pictures bit for bit.

- `pipeline`: `Augmentation`, from a photo to a normalised sample; the transforms by name
- `transform`: the base of every transform, draw parameters first and apply them after
- `geometry`: crop, resize, flip, rotation, quarter turn, shear, shift
- `colour`: brightness, contrast, saturation, hue, sharpness and their jitter
- `rand_augment`: RandAugment, a few random operations of one strength
- `erasing`: a random box of the sample is overwritten
- `mixing`: MixUp and CutMix, on whole batches
- `boxes`: random boxes, for cropping and erasing
"""
