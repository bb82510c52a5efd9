#!/usr/bin/env bash
# A first convolution (3 x 3 on RGB) saved by MLX loads into torch with strict=True, with its axes scrambled
#
# Packages: mlx 0.32.4 with mlx-cpu 0.32.4, safetensors 0.8.0, torch 2.13.0, numpy 2.4.6 (Python 3.11, x86-64 Linux).
# Date: 2026-11-28
#
# Expected: MLX keeps kernels channels-last, (out, height, width, in), torch (out, in, height, width); its Module.save_weights
#   writes a .safetensors, whose header has a place to say so (mlx-lm writes {"format": "mlx"} there), and a loader
#   that checks names and shapes notices the rest.
# Happens: save_weights writes "__metadata__": null, which is neither a table of strings nor left out, so the file says nothing
#   of where it is from, and safe_open(..., framework="pt") gives metadata() None as for a file by torch. For a kernel
#   whose height, width and input channels are equal the shapes agree too: a 3 x 3 convolution on RGB, the first layer of
#   a ResNet-like stem and of the convolutional stems of vision transformers (arXiv:2106.14881), is (16, 3, 3, 3) in both.
#   load_state_dict(strict=True) has no complaint, and the layer computes something else: its output correlates
#   with the right one by about 0.2 for random kernels. Moving the last axis to the second place gives it to 1e-6.
#   (A patch embedding, (16, 8, 8, 3) against (16, 3, 8, 8), is refused by its shape: only the stem slips through.)
# Why it matters: names agree when a model was ported layer by layer, all other layers are matrices or refuse loudly, and a
#   network with a scrambled first layer gives features that look like features.
set -euo pipefail
export OMP_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq numpy==2.4.6 safetensors==0.8.0 mlx==0.32.4 mlx-cpu==0.32.4
"$tmp/env/bin/pip" install -qq torch==2.13.0
cat > "$tmp/check.py" <<'P'
import json, struct, sys
from pathlib import Path
import mlx.core as mx, numpy as np, torch
from mlx import nn
from safetensors import safe_open
from safetensors.torch import load_file

path = str(Path(sys.argv[1], "stem.safetensors"))
mx.random.seed(0)
ours = nn.Conv2d(3, 16, 3, stride=2, padding=1)
ours.save_weights(path)
raw = Path(path).read_bytes()
header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
with safe_open(path, framework="pt") as file:
    metadata = file.metadata()
print("header:", {name: entry and entry.get("shape") for name, entry in header.items()}, "metadata():", metadata)
assert "__metadata__" in header and header["__metadata__"] is None and metadata is None

theirs = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
tensors = load_file(path)
print("load_state_dict(strict=True):", theirs.load_state_dict(tensors, strict=True))
picture = np.random.default_rng(0).standard_normal((1, 32, 48, 3)).astype(np.float32)
right = np.array(ours(mx.array(picture)))
with torch.no_grad():
    batch = torch.from_numpy(picture).permute(0, 3, 1, 2)
    loaded = theirs(batch).permute(0, 2, 3, 1).numpy()
    theirs.weight.copy_(tensors["weight"].permute(0, 3, 1, 2))
    mended = theirs(batch).permute(0, 2, 3, 1).numpy()
correlation = np.corrcoef(right.ravel(), loaded.ravel())[0, 1]
print(f"correlation of the loaded layer's output with MLX's: {correlation:.2f}; axes moved: {abs(mended - right).max():.1e} apart")
assert correlation < 0.6 and abs(mended - right).max() < 1e-5

patches = nn.Conv2d(3, 16, 8, stride=8)
patches.save_weights(path)
try:
    torch.nn.Conv2d(3, 16, 8, stride=8).load_state_dict(load_file(path), strict=True)
except RuntimeError as error:
    print("a patch embedding is refused:", str(error).splitlines()[1].strip()[:110])
else:
    raise SystemExit("a patch embedding loads too")
P
"$tmp/env/bin/python" "$tmp/check.py" "$tmp"
echo "as described"
