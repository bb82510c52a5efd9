#!/usr/bin/env bash
# datasets' Image column: a thumbnail made in place comes back full size, and passing a JPEG through map() degrades it
#
# Packages: datasets 5.2.0, Pillow 13.0.0, numpy 2.4.6.
# Date: 2026-11-28
#
# Expected: a Pillow picture put into an Image column, or returned by map(), is stored with its pixels as they are.
# Happens: three different things, decided by attributes of the picture that nobody looks at.
#   1. A picture from Image.open(path) still has its file name, so the column stores the *name*, not the pixels. Whatever was done in
#      place is lost without a word: thumbnail((224, 224)) comes back as 400 x 300, and after painting the whole picture black
#      its mean is 125.8, not 0. The same inside map(): x["image"].thumbnail((64, 64)) is ignored. (resize() returns a new picture
#      without a file name and is kept.)
#   2. A JPEG that was opened from bytes (every row of a parquet file) has no name but still the format "JPEG": it is encoded
#      again at Pillow's default quality of 75, though nothing was changed. One map(lambda r: {"image": r["image"]}) over a
#      quality-95 photo: 7.1 grey levels off in the mean, up to 67; five such passes: 8.1 in the mean, up to 78. map(lambda r: r)
#      changes nothing.
#   3. After convert("RGB") or resize() the format is gone and the picture is stored as PNG: 0 levels off, several times the bytes.
# Why it matters: preparing a data set for a ViT or a captioner is exactly this: thumbnail once, store, train for weeks. Case 1
#   trains on pictures that were never shrunk (or with the text and faces that were painted over still there); case 2 hands the model
#   other pixels than the evaluation that reads the files. img.copy() or resize() before storing cures 1, convert("RGB") cures 2.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_DATASETS_OFFLINE=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
export HF_HOME="$tmp/hf"
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cat > "$tmp/check.py" <<'E'
import io, sys
import numpy as np
import datasets
from datasets import Dataset, Features, Image as Column
from PIL import Image, ImageDraw
datasets.disable_progress_bars()
path = sys.argv[1] + "/photo.jpg"
y, x = np.mgrid[:300, :400]
a = np.stack([np.sin(x / 9) * 127 + 128, np.cos(y / 7) * 127 + 128, (x * y) % 256], -1).astype(np.uint8)
Image.fromarray(a).save(path, quality=95)
photo = np.asarray(Image.open(path)).astype(int)
kind = Features({"image": Column()})

def stored(picture):
    return Dataset.from_dict({"image": [picture]}, features=kind)[0]["image"]

def off(picture):
    d = np.abs(np.asarray(picture).astype(int) - photo)
    return d.max(), d.mean()

im = Image.open(path)
im.thumbnail((224, 224))
print("1. thumbnail in place:", im.size, "stored and read back:", stored(im).size)
assert im.size == (224, 168) and stored(im).size == (400, 300)
im = Image.open(path)
ImageDraw.Draw(im).rectangle((0, 0, 400, 300), fill=0)
print("   painted black: mean", np.asarray(im).mean(), "read back:", round(np.asarray(stored(im)).mean(), 1))
assert np.asarray(im).mean() == 0 and off(stored(im))[0] == 0
copy = im.copy()
assert np.asarray(stored(copy)).mean() == 0            # the cure

def shrink(row):
    row["image"].thumbnail((64, 64))
    return row

rows = Dataset.from_dict({"image": [path]}, features=kind)
print("   thumbnail in place inside map():", rows.map(shrink)[0]["image"].size)
assert rows.map(shrink)[0]["image"].size == (400, 300)

with open(path, "rb") as f:
    data = f.read()
rows = Dataset.from_list([{"image": {"bytes": data, "path": None}}]).cast_column("image", Column())
assert off(rows[0]["image"])[0] == 0
assert off(rows.map(lambda r: r)[0]["image"])[0] == 0
seen = []
for n in range(5):
    rows = rows.map(lambda r, n=n: {"image": r["image"], "n": n}, load_from_cache_file=False)
    seen.append(off(rows[0]["image"]))
    print(f"2. returned unchanged by map(), pass {n + 1}: largest {seen[-1][0]} levels, mean {seen[-1][1]:.2f}")
assert seen[0][0] > 40 and 5 < seen[0][1] < 9 and seen[4][1] > seen[0][1] + 0.5
im = Image.open(io.BytesIO(data)).convert("RGB")
png = stored(im)
size = io.BytesIO(); im.save(size, "PNG")
print("3. after convert('RGB'): stored as", png.format, "levels off:", off(png)[0], f"bytes {len(data)} -> {size.tell()}")
assert png.format == "PNG" and off(png)[0] == 0 and size.tell() > 1.5 * len(data)
E
"$tmp/env/bin/python" "$tmp/check.py" "$tmp"
echo "as described"
