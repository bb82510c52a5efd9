"""One module a source, each with the same three names.

`recognises(source)` says whether a file looks like this source's, `KEYS` is its table of names, and
`convert(source, hints)` gives the parts of the model.
"""

# In the order in which they are asked; the modules are weights_convert.formats.NAME.
FORMATS = (
    "catr",
    "resnet",
    "jax",
    "torchvision",
    "lukemelas",
    "hugging_face",
    "open_clip",
    "dinov2",
    "dino",
    "timm",
)
