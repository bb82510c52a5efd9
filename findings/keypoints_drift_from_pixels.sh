#!/usr/bin/env bash
# One mark in a picture, its mask and its key point part ways: torchvision's KeyPoints, kornia's Resize
#
# Packages: torchvision 0.29.1 with torch 2.14.1, kornia 0.9.0, numpy 2.4.6 (CPU).
# Date: 2026-11-28
#
# Expected: a transform moves a picture, its mask, its boxes and its key points together, by one convention.
# Happens (a mark of 7 x 7 pixels round pixel x = 14, y = 10 of a 60 x 40 picture; its mask; KeyPoints([14, 10])):
#   torchvision: horizontal_flip and vertical_flip treat the point as a pixel's *index* (x -> W-1-x: it stays on the mark), rotate, affine
#   and resize as a position measured from the picture's *edge* (pixel centres at half). So flipping both ways and rotate(180), the same
#   movement, put the same point on (45, 29) and (46, 30); resize by 4 puts it on (56, 40) while the mark's middle is (57.5, 41.5), by 7
#   (32 -> 224 pixels) 3 pixels off. Started as an edge position (14.5, 10.5), it is right under rotate and resize and one
#   pixel off after each flip: no convention is right under all of them. Boxes are right under all.
#   kornia: AugmentationSequential(Resize(...)) on input, mask and key points resizes the picture with align_corners=True (its default) and the
#   mask by nearest-exact, which has no such thing: the middle of the mark is (56.71, 40.77) in the picture and (57.5, 41.5) in the mask.
#   At the border of a 32 -> 224 enlargement picture and mask are 3 pixels apart, at the opposite border 3 the other way.
# Why it matters: a pointing game asks whether the strongest cell of an attention map lies on the object. A click (torchvision) or a
#   mask (kornia) that has been enlarged with its picture is off by (ratio - 1) / 2 pixels: 16 x 16 brought to 224 6.5 pixels, half a
#   patch; and with random flips and rotations one and the same click wanders by a pixel from epoch to epoch.
set -euo pipefail
export OMP_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq torch==2.14.1 torchvision==0.29.1 kornia==0.9.0 numpy==2.4.6
cat > "$tmp/check.py" <<'E'
import numpy as np, torch
from torchvision import tv_tensors as tv
from torchvision.transforms.v2 import functional as F
import kornia.augmentation as K

H, W, X, Y = 40, 60, 14, 10
mark = torch.zeros(1, H, W)
mark[:, Y - 3:Y + 4, X - 3:X + 4] = 1

def middle(t):
    t = t.reshape(t.shape[-2:]).double().clamp(min=0)
    y, x = torch.meshgrid(*(torch.arange(n).double() for n in t.shape), indexing="ij")
    return [round(float((c * t).sum() / t.sum()), 2) for c in (x, y)]

turn = {"flip x": F.horizontal_flip, "flip y": F.vertical_flip,
        "flip both": lambda t: F.vertical_flip(F.horizontal_flip(t)), "rotate 180": lambda t: F.rotate(t, 180.0),
        "rotate 90": lambda t: F.rotate(t, 90.0, expand=True), "resize x 4": lambda t: F.resize(t, [4 * H, 4 * W]),
        "resize x 7": lambda t: F.resize(t, [7 * H, 7 * W])}
print("torchvision     picture          mask             box's middle     point as index   point as edge position")
off = {}
for name, f in turn.items():
    picture, mask = middle(f(tv.Image(mark))), middle(f(tv.Mask(mark)))
    b = f(tv.BoundingBoxes(torch.tensor([[X - 3.0, Y - 3, X + 4, Y + 4]]), format="XYXY", canvas_size=(H, W)))[0].tolist()
    box = [(b[0] + b[2]) / 2 - 0.5, (b[1] + b[3]) / 2 - 0.5]
    point = lambda x, y: [round(v, 2) for v in f(tv.KeyPoints(torch.tensor([[x, y]]), canvas_size=(H, W)))[0].tolist()]
    index, edge = point(float(X), float(Y)), point(X + 0.5, Y + 0.5)
    print(f"{name:12s}", *(f"{str(v):16s}" for v in (picture, mask, box, index, edge)))
    assert np.allclose(picture, mask, atol=0.02) and np.allclose(picture, box, atol=0.02)
    off[name] = (np.abs(np.subtract(index, picture)).max(), np.abs(np.subtract(edge, picture) - 0.5).max())
print("largest distance from the mark, as index / as edge position:", {k: tuple(round(float(v), 2) for v in d) for k, d in off.items()})
want = {"flip x": (0, 1), "flip y": (0, 1), "flip both": (0, 1), "rotate 180": (1, 0), "rotate 90": (1, 0), "resize x 4": (1.5, 0), "resize x 7": (3, 0)}
for k, d in want.items():
    assert np.allclose(off[k], d, atol=0.03), (k, off[k])

print("kornia AugmentationSequential(Resize)")
for corners, apart in ((True, True), (False, False)):
    both = K.AugmentationSequential(K.Resize((4 * H, 4 * W), align_corners=corners) if not corners else K.Resize((4 * H, 4 * W)), data_keys=["input", "mask", "keypoints"])
    picture, mask, point = both(mark[None], mark[None], torch.tensor([[[float(X), float(Y)]]]))
    p, m = middle(picture[0]), middle(mask[0])
    print(f"   60 x 40 -> 240 x 160, align_corners {'by default' if corners else False}: picture {p}, mask {m}, key point {[round(v, 2) for v in point[0, 0].tolist()]}")
    assert (np.abs(np.subtract(p, m)).max() > 0.7) == apart
ramp = torch.arange(32.0).repeat(32, 1)[None, None]
for at, name in ((slice(0, 1), "first"), (slice(31, 32), "last")):
    column = torch.zeros(1, 1, 32, 32); column[..., at] = 1
    picture, mask = K.AugmentationSequential(K.Resize((224, 224)), data_keys=["input", "mask"])(ramp, column)
    row = picture[0, 0, 100].double()
    value = float(column[0, 0, 0].argmax())
    centre_in_picture = float(np.interp(value, row.numpy(), np.arange(224)))
    print(f"   32 -> 224: middle of the {name} column: picture {centre_in_picture:.1f}, mask {middle(mask[0])[0]}")
    assert abs(abs(centre_in_picture - middle(mask[0])[0]) - 3) < 0.2
E
"$tmp/env/bin/python" "$tmp/check.py"
echo "as described"
