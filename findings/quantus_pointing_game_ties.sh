#!/usr/bin/env bash
# Quantus' pointing game: a random ViT map scores 94 % if it was clipped, and a picture without its object is a hit
#
# Packages: quantus 0.6.0, numpy 2.4.6 (no torch needed: maps and masks are given).
# Date: 2026-11-28
#
# Expected: PointingGame ("whether the point of maximal attribution is on target") gives a map of random numbers the share of
#   the picture that the mask covers, and NaN for a picture whose mask is empty, as the source's comment says and the other localisation metrics do.
# Happens (random maps, 200 elliptic masks that cover 10 % of a 224 x 224 picture):
#   1. Every pixel equal to the maximum may score, and one on the mask is enough. A 14 x 14 map enlarged to 224 by nearest has 256 such
#      pixels, so a cell that only touches the mask is a hit: 16 % of the cells, and 14 x 14 scores 14 %, 7 x 7 25 %. That is
#      the small part. Ties between cells: the same random 14 x 14 maps clipped at their 98th percentile (as heat maps are drawn) 42 %, at
#      the 90th 94 %, stored as float16 with values from 0.99 to 1 49 %, in 5 grey levels 96 %. Counting the share of the tied
#      pixels that lie on the mask, all of them stay between 9 and 13 %.
#   2. A picture with an empty mask is a *hit*: NaN is written into an array of booleans, where it becomes True. RelevanceRankAccuracy,
#      RelevanceMassAccuracy, TopKIntersection and AUC give NaN for the same input. weighted=True raises a TypeError for every input that has a hit.
# Why it matters: pointing accuracies of attention maps are quoted to the per cent. Clipping, discarding or rounding a map before
#   scoring lifts nonsense above trained models, and masks that a centre crop emptied count in favour. Score the raw map, break
#   ties (argmax, or the expected share among the tied), and leave empty masks out.
set -euo pipefail
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq quantus==0.6.0 numpy==2.4.6
cat > "$tmp/check.py" <<'E'
import warnings
warnings.simplefilter("ignore")
import numpy as np, quantus

rng = np.random.default_rng(0)
SIDE, N = 224, 200
y, x = np.mgrid[:SIDE, :SIDE]
masks = np.zeros((N, 1, SIDE, SIDE), bool)
for m in masks:
    (cy, cx), (ry, rx) = rng.uniform(60, 164, 2), rng.uniform(20, 60, 2)
    m[0] = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
share = masks.mean()

def score(maps, masks, metric=quantus.PointingGame, **kw):
    n, side = len(maps), masks.shape[-1]
    return np.asarray(metric(disable_warnings=True, **kw)(
        model=None, x_batch=np.zeros((n, 1, side, side), np.float32), y_batch=np.zeros(n, int),
        a_batch=maps.astype(np.float32), s_batch=masks, channel_first=True), float)

def enlarge(cells):
    return cells.repeat(SIDE // cells.shape[-1], 2).repeat(SIDE // cells.shape[-1], 3)

def fair(maps):                                        # the share of the tied pixels that lie on the mask
    top = maps == maps.max((1, 2, 3), keepdims=True)
    return ((top & masks).sum((1, 2, 3)) / top.sum((1, 2, 3))).mean()

def clipped(cells, q):
    return np.minimum(cells, np.quantile(cells.reshape(N, -1), q, axis=1)[:, None, None, None])

cells = rng.random((N, 1, 14, 14))
kinds = {"14 x 14": cells, "7 x 7": rng.random((N, 1, 7, 7)), "14 x 14 clipped at 98 %": clipped(cells, 0.98),
         "14 x 14 clipped at 90 %": clipped(cells, 0.90), "14 x 14 float16, 0.99 to 1": (0.99 + 0.01 * cells).astype(np.float16),
         "14 x 14 in 5 grey levels": np.round(cells * 4) / 4 + 0.01}
print(f"1. random maps; the masks cover {100 * share:.1f} % of the picture")
seen = {}
for name, c in kinds.items():
    touched = masks.reshape(N, c.shape[-1], SIDE // c.shape[-1], c.shape[-1], SIDE // c.shape[-1]).any((2, 4)).mean()
    seen[name] = score(enlarge(c), masks).mean()
    print(f"   {name:28s} Quantus {100 * seen[name]:5.1f} %   share of the tied pixels on the mask {100 * fair(enlarge(c)):5.1f} %   cells that touch a mask {100 * touched:4.1f} %")
    assert fair(enlarge(c)) < 0.16
assert seen["14 x 14"] < 0.25 and seen["7 x 7"] > 1.5 * share and seen["14 x 14 clipped at 98 %"] > 0.3
assert seen["14 x 14 clipped at 90 %"] > 0.85 and seen["14 x 14 float16, 0.99 to 1"] > 0.4 and seen["14 x 14 in 5 grey levels"] > 0.9

maps = rng.random((4, 1, 32, 32))
few = np.zeros((4, 1, 32, 32), bool); few[:, :, :16] = True; few[1] = False
few[0], maps[0, 0, 31, 31] = few[0], 2.0                                   # a miss
print("2. four pictures: a miss, one without a mask, two more")
hits = score(maps, few)
print("   PointingGame", hits)
assert hits[0] == 0 and hits[1] == 1
for name in ("RelevanceRankAccuracy", "RelevanceMassAccuracy", "TopKIntersection", "AUC"):
    s = score(maps, few, getattr(quantus, name))
    print(f"   {name}", s.round(2))
    assert np.isnan(s[1]) and not np.isnan(s[[0, 2, 3]]).any()
try:
    score(maps, few, weighted=True)
    raise SystemExit("weighted=True works now")
except TypeError as e:
    print("   weighted=True: TypeError", e)
E
"$tmp/env/bin/python" "$tmp/check.py"
echo "as described"
