#!/usr/bin/env bash
# A palette PNG becomes its palette's index numbers: transformers' DINOv3 processor and torchvision's decode_image
#
# Packages: transformers 5.24.0, torch 2.14.1, torchvision 0.29.1, Pillow 13.0.0, numpy 2.4.6 (CPU).
# Date: 2026-11-28
#
# Expected: a picture of 64 colours saved as a palette PNG (as pngquant and "save for web" write), or a black-and-white one, gives
#   the model the same input as its RGB version, or an error.
# Happens: depends on the processor. CLIP's, BLIP's, SigLIP's and DINOv2's (BitImageProcessor) convert: 0 apart (16-bit grey excepted, which Pillow clips). ViT's, DeiT's, BEiT's and ConvNeXt's
#   raise an error about shapes. DINOv3ViTImageProcessor does neither: it takes the index plane as a grey picture, lets the normalisation broadcast it
#   to three channels and returns (1, 3, 224, 224) as always. Indices run to 63 of 255, so all is dark, and neighbouring
#   colours of the palette need not look alike: up to 4.3 apart where the right input spans 4.2, correlation with it -0.47. A
#   1-bit picture arrives as 0 and 1 of 255: black. A 16-bit grey PNG arrives 257 times too bright (1,107 apart). RGBA and CMYK raise.
#   torchvision.io.decode_image (mode UNCHANGED, "loads the image as-is", its default) does the same with a palette file: (1, H, W) of indices, no
#   palette to look them up in; mode="RGB" applies it. Reading by decode_image and feeding the DINOv3 processor gives the same wrong tensor.
# Why it matters: the features of such pictures are noise with a valid shape: one PNG among the JPEGs of a data set, and its attention map,
#   nearest neighbours and caption are wrong with no sign. Image.open(f).convert("RGB") before any processor cures all of it (16-bit
#   grey needs scaling first).
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
export HF_HOME="$tmp/hf"
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 pillow==13.0.0 numpy==2.4.6
cat > "$tmp/check.py" <<'E'
import io, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
import numpy as np, torch, transformers
from PIL import Image
from torchvision.io import decode_image

y, x = np.mgrid[:240, :320]
a = np.stack([np.sin(x / 40) * 120 + 130, np.cos(y / 30) * 120 + 130, (x + y) / 2.2], -1).clip(0, 255).astype(np.uint8)
rgb = Image.fromarray(a)
grey = rgb.convert("L")
pictures = {"palette": rgb.quantize(64), "1-bit": rgb.convert("1"), "16-bit grey": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
            "8-bit grey": grey, "RGBA": rgb.convert("RGBA"), "CMYK": rgb.convert("CMYK")}
want = {"palette": grey, "1-bit": None, "16-bit grey": grey}
names = ["CLIPImageProcessor", "BlipImageProcessor", "SiglipImageProcessor", "BitImageProcessor", "ViTImageProcessor",
         "DeiTImageProcessor", "BeitImageProcessor", "ConvNextImageProcessor", "DINOv3ViTImageProcessor"]
table = {}
for name in names:
    processor = getattr(transformers, name)()
    for kind, picture in pictures.items():
        right = grey.convert("RGB") if kind == "16-bit grey" else picture.convert("RGB")
        ref = processor(right, return_tensors="pt").pixel_values
        try:
            got = processor(picture, return_tensors="pt").pixel_values
            table[name, kind] = float((got - ref).abs().max()) if got.shape == ref.shape else "shape"
            if name.startswith("DINOv3") and kind == "palette":
                r = float(np.corrcoef(got.flatten(), ref.flatten())[0, 1])
                spread = float(ref.max() - ref.min())
                first = got
        except (RuntimeError, ValueError):
            table[name, kind] = "error"
print(f"{'largest distance from the RGB version':26s}", *(f"{k:>12s}" for k in pictures))
for name in names:
    row = [table[name, k] for k in pictures]
    print(f"{name:37s}", *(f"{v:12.3f}" if isinstance(v, float) else f"{v:>12s}" for v in row))
print(f"DINOv3, palette: correlation with the right input {r:+.2f}; the right input spans {spread:.1f}")
for name in names[:4]:
    assert table[name, "palette"] == table[name, "1-bit"] == 0
for name in names[4:8]:
    assert table[name, "palette"] == table[name, "1-bit"] == "error"
d = "DINOv3ViTImageProcessor"
assert table[d, "palette"] > 2 and table[d, "1-bit"] > 4 and table[d, "16-bit grey"] > 900 and table[d, "8-bit grey"] < 0.02
assert table[d, "RGBA"] == table[d, "CMYK"] == "error" and r < 0.8

f = io.BytesIO(); pictures["palette"].save(f, "PNG")
data = torch.frombuffer(bytearray(f.getvalue()), dtype=torch.uint8)
plain, as_rgb = decode_image(data), decode_image(data, mode="RGB")
print("decode_image of the palette PNG:", tuple(plain.shape), "values up to", int(plain.max()), "- equal to the indices:",
      np.array_equal(plain[0], np.asarray(pictures["palette"])), "- mode='RGB' equal to Pillow's convert:",
      np.array_equal(as_rgb.permute(1, 2, 0), np.asarray(pictures["palette"].convert("RGB"))))
assert plain.shape == (1, 240, 320) and np.array_equal(plain[0], np.asarray(pictures["palette"]))
assert np.array_equal(as_rgb.permute(1, 2, 0), np.asarray(pictures["palette"].convert("RGB")))
again = transformers.DINOv3ViTImageProcessor()(plain, return_tensors="pt").pixel_values
print("decode_image, then the DINOv3 processor: equal to the wrong tensor above:", torch.equal(again, first))
assert torch.equal(again, first)
E
"$tmp/env/bin/python" "$tmp/check.py"
echo "as described"
