#!/usr/bin/env bash
# Pillow 13 resizes some pictures down first and then across: the same call gives other pixels than Pillow 12
#
# Packages: pillow 13.0.0 beside 12.0.0, numpy 2.4.6 (Python 3.11, x86-64 Linux).
# Date: 2026-11-28
#
# Expected: Image.resize makes two passes, across and then down, each with weights in whole numbers and a result in bytes. This
#   is how the documentation and the code of many ports have it, and the bytes in between make the order visible.
# Happens: Pillow 13.0.0 makes the pass down first where it takes off more rows than twice the columns that the other takes
#   off (h - h' > 2 (w - w')). Such a picture, a tall one that is squashed say, differs from that of Pillow 12.0.0, by one level
#   here and there in photos and by up to 10 in noise; all others are the same to the bit.
# Why it matters: whoever writes the resize again (a browser, another language, a fused kernel) to meet a model's preprocessing to the
#   last bit has to follow the order of the version; outputs that were stored with one version are off with the other.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
for version in 12.0.0 13.0.0; do
  python3 -m venv "$tmp/$version"
  "$tmp/$version/bin/pip" install -qq numpy==2.4.6 "pillow==$version"
done
cat > "$tmp/order.py" <<'P'
import sys
import numpy as np
import PIL
from PIL import Image

noise = np.random.default_rng(0)
seen = {}
for width, height, new_width, new_height in [
    (100, 300, 90, 60), (100, 300, 60, 180), (300, 100, 60, 90), (200, 200, 100, 40), (200, 200, 150, 101), (200, 200, 150, 99),
    (64, 64, 128, 32), (64, 64, 32, 128), (57, 230, 56, 56), (400, 120, 224, 60),
]:
    picture = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
    one = np.asarray(picture.resize((new_width, new_height), Image.Resampling.BICUBIC))
    across = np.asarray(picture.resize((new_width, height), Image.Resampling.BICUBIC).resize((new_width, new_height), Image.Resampling.BICUBIC))
    down = np.asarray(picture.resize((width, new_height), Image.Resampling.BICUBIC).resize((new_width, new_height), Image.Resampling.BICUBIC))
    assert (across != down).any() and (np.array_equal(one, across) or np.array_equal(one, down))
    order = "across" if np.array_equal(one, across) else "down"
    rule = "down" if height - new_height > 2 * (width - new_width) else "across"
    seen[width, height, new_width, new_height] = order
    apart = np.abs(across.astype(int) - down).max()
    print(f"pillow {PIL.__version__}: {width}x{height} -> {new_width}x{new_height}: {order} first; the other order is {apart} apart at most")
    assert order == (rule if PIL.__version__.startswith("13.") else "across"), (order, rule)
P
for version in 12.0.0 13.0.0; do "$tmp/$version/bin/python" "$tmp/order.py"; done
