#!/usr/bin/env bash
# A query row whose every key is masked: 0, the mean of the values, or NaN, and asking for the weights changes the answer
#
# Packages: torch 2.13.0 (CPU), onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, jax 0.10.2, flax 0.12.8, mlx and mlx-cpu 0.32.4, keras 3.15.1
#   (its torch backend), numpy 2.4.6.
# Date: 2026-11-28
#
# Expected: torch's scaled_dot_product_attention gives 0 for such a row, for a boolean and for an additive -inf mask. Its ONNX
#   export and the same call in other libraries give the same.
# Happens, same q, k, v, row 1 of 5 with no key left:
#   torch                       boolean 0       -inf 0
#   its ONNX export, opset 20 (the default), run by onnxruntime: boolean the *mean of all values*, -inf *NaN*; opset 23: 0 and 0.
#     (The exported boolean graph does hold IsNaN and Where to get the 0; they never fire: False becomes the lowest finite number, not -inf.)
#   jax.nn.dot_product_attention  boolean mean    -inf (bias) NaN
#   mlx scaled_dot_product        boolean mean    -inf NaN
#   flax MultiHeadDotProductAttention, sown weights: 0.2 for each of five keys.
#   keras MultiHeadAttention: the returned scores of the row are 0, and *the layer's output for the row is another one when scores are asked for*
#     (0.94 apart; other rows 2e-7): the paths with and without scores treat such a row differently.
#   All other rows agree to 1e-6 everywhere, so a comparison of the outputs in the mean shows little.
#   And the word "causal" with 3 queries and 5 keys (a cache): in torch, jax and keras query 0 sees key 0 alone; in mlx it sees keys 0 to 2.
# Why it matters: left-padded captions under a causal mask, an empty caption in a batch and windows at a picture's border have such rows. A port
#   passes every test without padding, then differs, or one NaN of the export spreads through the next LayerNorm to the loss; a map of
#   such a row is uniform in one library, empty in another.
set -euo pipefail
export OMP_NUM_THREADS=1 KERAS_BACKEND=torch JAX_PLATFORMS=cpu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 jax==0.10.2 flax==0.12.8 mlx==0.32.4 mlx-cpu==0.32.4 keras==3.15.1 numpy==2.4.6
cat > "$tmp/check.py" <<'E'
import sys, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
import numpy as np, torch, torch.nn.functional as F
import onnxruntime, jax, jax.numpy as jnp, flax.linen as nn, mlx.core as mx, keras

folder = sys.argv[1]
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 2, 5, 8)).astype(np.float32) for _ in range(3))          # batch, heads, tokens, width
boolean = np.ones((5, 5), bool); boolean[1] = False
additive = np.where(boolean, 0, -np.inf).astype(np.float32)
mean = v.mean(2)[0]
others = [0, 2, 3, 4]

def name(row):
    if np.isnan(row).all(): return "NaN"
    if np.abs(row).max() == 0: return "0"
    return "mean" if np.abs(row - mean).max() < 1e-5 else "something else"

class Attend(torch.nn.Module):
    def forward(self, q, k, v, m):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=m)

seen = {}
for kind, mask in (("boolean", boolean), ("-inf", additive)):
    tensors = tuple(torch.from_numpy(t.copy()) for t in (q, k, v, mask))
    ref = Attend()(*tensors).numpy()
    out = {"torch": ref}
    for opset in (None, 23):
        with open(folder + "/log", "w") as log:
            stdout, sys.stdout = sys.stdout, log
            try:
                program = torch.onnx.export(Attend(), tensors, dynamo=True, opset_version=opset, verbose=False)
            finally:
                sys.stdout = stdout
        program.save(folder + "/m.onnx")
        session = onnxruntime.InferenceSession(folder + "/m.onnx", providers=["CPUExecutionProvider"])
        used = program.model.opset_imports[""]
        out[f"ONNX opset {used}"] = session.run(None, dict(zip([i.name for i in session.get_inputs()], (q, k, v, mask))))[0]
        if opset is None and kind == "boolean":
            kinds = [n.op_type for n in program.model.graph]
            print("default opset", used, "graph:", " ".join(kinds))
            constants = [i.const_value.numpy() for i in program.model.graph.initializers.values() if i.const_value is not None]
            lowest = [float(c) for c in constants if c.dtype == np.float32 and c.size == 1 and c < -1e30]
            print("its constant for a masked key:", lowest)
            assert used < 23 and "IsNaN" in kinds and lowest and np.isfinite(lowest).all()
    turned = [jnp.asarray(t.transpose(0, 2, 1, 3)) for t in (q, k, v)]
    how = {"mask": jnp.asarray(mask)[None, None]} if kind == "boolean" else {"bias": jnp.asarray(mask)[None, None]}
    out["jax"] = np.asarray(jax.nn.dot_product_attention(*turned, **how)).transpose(0, 2, 1, 3)
    out["mlx"] = np.array(mx.fast.scaled_dot_product_attention(*(mx.array(t) for t in (q, k, v)), scale=8 ** -0.5, mask=mx.array(mask)))
    for library, o in out.items():
        label = "ONNX default" if library.startswith("ONNX") and "23" not in library else library
        seen[label, kind] = name(o[0, :, 1])
        print(f"{library:14s} {kind:8s} masked row: {seen[label, kind]:5s} other rows apart from torch: {np.abs(o - ref)[:, :, others].max():.1g}")
        assert np.abs(o - ref)[:, :, others].max() < 1e-5
want = {"torch": "0 0", "ONNX default": "mean NaN", "ONNX opset 23": "0 0", "jax": "mean NaN", "mlx": "mean NaN"}
for library, w in want.items():
    assert [seen[library, "boolean"], seen[library, "-inf"]] == w.split(), library

x = rng.standard_normal((1, 5, 16)).astype(np.float32)
layer = nn.MultiHeadDotProductAttention(num_heads=2)
variables = layer.init(jax.random.key(0), x, x)
_, state = layer.apply(variables, x, x, mask=jnp.asarray(boolean)[None, None], sow_weights=True, mutable=["intermediates"])
row = np.asarray(state["intermediates"]["attention_weights"][0])[0, 0, 1]
print("flax, weights of the row:", row.round(3))
assert np.abs(row - 0.2).max() < 1e-6

layer = keras.layers.MultiHeadAttention(2, 8)
with_scores, scores = layer(x, x, attention_mask=boolean[None], return_attention_scores=True)
without = layer(x, x, attention_mask=boolean[None])
d = (with_scores - without).detach().abs().numpy().max((0, 2))
print("keras, scores of the row:", scores[0, 0, 1].detach().numpy(), "output with and without scores apart, by row:", d)
assert float(scores[0, :, 1].detach().abs().max()) == 0 and d[1] > 0.05 and d[others].max() < 1e-5

eye = np.eye(5, dtype=np.float32)[None, None]
z3, z5 = np.zeros((1, 1, 3, 5), np.float32), np.zeros((1, 1, 5, 5), np.float32)
t = lambda a: torch.from_numpy(a)
first = {"torch": F.scaled_dot_product_attention(t(z3), t(z5), t(eye), is_causal=True)[0, 0, 0].numpy(),
         "jax": np.asarray(jax.nn.dot_product_attention(*(jnp.asarray(a.transpose(0, 2, 1, 3)) for a in (z3, z5, eye)), is_causal=True))[0, 0, 0],
         "keras": keras.layers.MultiHeadAttention(1, 5)(z3[0], z5[0], use_causal_mask=True, return_attention_scores=True)[1][0, 0, 0].detach().numpy(),
         "mlx": np.array(mx.fast.scaled_dot_product_attention(mx.array(z3), mx.array(z5), mx.array(eye), scale=1.0, mask="causal"))[0, 0, 0]}
for library, w in first.items():
    print(f"causal, 3 queries, 5 keys, first query, {library:6s}", w.round(2))
    assert np.allclose(w, [1, 0, 0, 0, 0] if library != "mlx" else [1 / 3, 1 / 3, 1 / 3, 0, 0], atol=1e-6)
E
"$tmp/env/bin/python" "$tmp/check.py" "$tmp"
echo "as described"
