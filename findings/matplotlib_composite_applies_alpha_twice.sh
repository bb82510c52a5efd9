#!/usr/bin/env bash
# matplotlib draws a see-through map over a picture half as strong in SVG as in PNG
#
# Packages: matplotlib 3.11.2 and 3.10.7, numpy 2.4.6, pillow 12.0.0 (Python 3.11, x86-64 Linux).
# Date: 2026-11-28
#
# Expected: two imshow calls in one axes, a picture and over it a map with alpha=0.5, look the same in every format.
# Happens: for SVG the pictures of an axes are put together into one raster (rcParams "image.composite_image", on by
#   default), and there alpha counts twice: black at alpha 0.5 over white is 128 in PNG and 191 or 192, that of alpha 0.25, in the raster of
#   the SVG file. With the option off, with one picture alone, or with alpha in the colour map instead, all formats agree.
# Why it matters: an attention map over a photo, this field's usual figure, is much paler in a vector figure than on the screen on which
#   it was checked, and no warning says so.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
for version in 3.10.7 3.11.2; do
  python3 -m venv "$tmp/$version"
  "$tmp/$version/bin/pip" install -qq numpy==2.4.6 pillow==12.0.0 "matplotlib==$version"
done
cat > "$tmp/alpha.py" <<'P'
import base64
import io
import re

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

matplotlib.use("Agg")


def middle(kind: str, *, composite: bool, alone: bool = False, alpha_in_map: bool = False) -> int:
    """The grey in the middle of white under black at half opacity."""
    figure = Figure(figsize=(1, 1), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    if not alone:
        axes.imshow(np.full((4, 4, 3), 255, np.uint8), extent=(0, 1, 0, 1))
    look = {"cmap": ListedColormap([(0, 0, 0, 0.5)])} if alpha_in_map else {"cmap": "gray_r", "alpha": 0.5}
    axes.imshow([[1.0]], vmin=0, vmax=1, extent=(0, 1, 0, 1), **look)
    file = io.BytesIO()
    with matplotlib.rc_context({"image.composite_image": composite}):
        figure.savefig(file, format=kind)
    if kind == "png":
        pictures = [Image.open(file)]
    else:
        rasters = re.findall(rb'base64,([^"]+)"', file.getvalue())
        pictures = [Image.open(io.BytesIO(base64.b64decode(raster))) for raster in rasters]
    page = Image.new("RGBA", (1, 1), "white")
    for picture in pictures:
        picture = picture.convert("RGBA")
        pixel = picture.getpixel((picture.width // 2, picture.height // 2))
        page = Image.alpha_composite(page, Image.new("RGBA", (1, 1), pixel))
    return page.getpixel((0, 0))[0]


png = middle("png", composite=True)
together = middle("svg", composite=True)
apart = middle("svg", composite=False)
alone = middle("svg", composite=True, alone=True)
in_map = middle("svg", composite=True, alpha_in_map=True)
print(f"matplotlib {matplotlib.__version__}: png {png}; svg {together}, not put together {apart}, one picture {alone}, alpha in the map {in_map}")
assert abs(png - 128) <= 1 and abs(together - 191) <= 1
assert all(abs(grey - 128) <= 1 for grey in (apart, alone, in_map))
P
for version in 3.10.7 3.11.2; do "$tmp/$version/bin/python" "$tmp/alpha.py"; done
