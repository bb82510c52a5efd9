#!/usr/bin/env bash
# safetensors 0.8.0 writes a transposed numpy (or mlx) array untransposed, without a word
#
# Packages: safetensors 0.7.0 and 0.8.0, numpy 2.4.6, mlx 0.32.4 with mlx-cpu 0.32.4 (Python 3.11, x86-64 Linux).
# Date: 2026-11-28
#
# Expected: safetensors.numpy.save_file({"w": kernel.T}, f) either stores kernel.T, as every release up to 0.7.0 does, or
#   refuses, as safetensors.torch does ("You are trying to save a non contiguous tensor").
# Happens: 0.7.0 stores kernel.T. 0.8.0 takes the address of the array's memory and its shape, and never looks at the strides:
#   the file has the shape of kernel.T and the bytes of kernel. No error, no warning, the file is valid. For a
#   square kernel (384 x 384, the q, k, v and output projections of a ViT-S) what comes back is kernel itself, the
#   untransposed matrix (99.7 % of the values differ from what was saved); for 384 x 1536 it is a scramble of the right shape:
#   x @ W of the file correlates with the true product by less than 0.05. Fortran-ordered arrays (np.asfortranarray,
#   matrices out of LAPACK or MATLAB files) and column slices such as qkv[:, :384] go wrong in the same way.
#   safetensors.mlx, which hands numpy views on, does the same with a transposed mlx array; mlx's own mx.save_safetensors
#   is right. (The documentation asks for contiguous tensors, but only the torch front end checks.)
# Why it matters: JAX/Flax and Keras kernels are (in, out), torch weights (out, in): ".T, then save_file" is the heart of every
#   checkpoint converter. The converted file loads with strict=True, shapes agree, and the model is nonsense; a script
#   that was right last month goes wrong by an upgrade. np.ascontiguousarray(...) before save_file cures it in all versions.
set -euo pipefail
export OMP_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq numpy==2.4.6 mlx==0.32.4 mlx-cpu==0.32.4
for v in 0.7.0 0.8.0; do "$tmp/env/bin/pip" install -qq --no-deps --target "$tmp/st-$v" safetensors==$v; done
cat > "$tmp/check.py" <<'E'
import sys, numpy as np, mlx.core as mx, safetensors, safetensors.numpy as sn, safetensors.mlx as sm
folder = sys.argv[1]
v = safetensors.__version__
right = v == "0.7.0"
rng = np.random.default_rng(0)
square = rng.standard_normal((384, 384)).astype(np.float32)
wide = rng.standard_normal((384, 1536)).astype(np.float32)
qkv = rng.standard_normal((384, 1152)).astype(np.float32)
cases = {"square kernel.T": square.T, "wide kernel.T": wide.T, "Fortran order": np.asfortranarray(wide),
         "qkv[:, :384]": qkv[:, :384]}
for name, a in cases.items():
    path = f"{folder}/w.safetensors"
    sn.save_file({"w": a}, path)
    b = sn.load_file(path)["w"]
    assert b.shape == a.shape
    x = rng.standard_normal((64, a.shape[0])).astype(np.float32)
    r = np.corrcoef((x @ a).ravel(), (x @ b).ravel())[0, 1]
    print(f"safetensors {v}  numpy {name:16s} shape {b.shape}  values that differ {100 * (a != b).mean():5.1f} %  correlation of x @ W {r:+.3f}")
    assert np.array_equal(a, b) == right, name
    assert right or abs(r) < 0.05, name
    c = sn.load(sn.save({"w": np.ascontiguousarray(a)}))["w"]
    assert np.array_equal(a, c), "the cure"
sn.save_file({"w": square.T}, path)
same = np.array_equal(sn.load_file(path)["w"], square)
print(f"safetensors {v}  what comes back for square kernel.T is kernel itself: {same}")
assert same != right
m = mx.array(wide).T
b = np.array(sm.load(sm.save({"w": m}))["w"])
print(f"safetensors {v}  mlx   kernel.T         equal to what was saved: {np.array_equal(b, wide.T)}")
assert np.array_equal(b, wide.T) == right
mx.save_safetensors(f"{folder}/m.safetensors", {"w": m})
own = np.array_equal(np.array(mx.load(f"{folder}/m.safetensors")["w"]), wide.T)
print(f"mlx's own save_safetensors, kernel.T: equal {own}")
assert own
E
for v in 0.7.0 0.8.0; do PYTHONPATH="$tmp/st-$v" "$tmp/env/bin/python" "$tmp/check.py" "$tmp"; done
echo "as described"
