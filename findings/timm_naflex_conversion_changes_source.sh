#!/usr/bin/env bash
# timm's ViT -> NaFlex conversion is right once: it rewrites the weights that it was given
#
# Packages: timm 1.0.31, torch 2.14.1, torchvision 0.29.1 (CPU).
# Date: 2026-11-28
#
# Expected: timm.models.naflexvit.checkpoint_filter_fn(state_dict, model), "state dict conversion from original ViT", returns the
#   renamed weights and leaves its input alone; what it cannot convert, it refuses.
# Happens:
#   1. It adds the class token's position embedding to state_dict["cls_token"] in place. A first NaFlex model loaded from the
#      dict equals the ViT to 4e-7. The dict, and the ViT itself where the dict came from model.state_dict(), is now changed: the ViT's
#      own logits move by 1.01 (largest logit 2.61), and a second NaFlex model made from the same dict is off by 1.01, a third by 1.45.
#      load_state_dict says "All keys matched successfully" every time.
#   2. Register tokens that have position embeddings of their own (reg_tokens=n without no_embed_class): the slice takes
#      [1:n] instead of [1:1+n]. One register: its position is dropped; two: the first's is added to both; logits off by 0.02 and 0.03,
#      all keys matched. Three or more: RuntimeError about sizes.
#   3. The grid is guessed from the number of tokens. 2 x 8 patches are taken for 4 x 4: load_state_dict refuses here, but a
#      NaFlex model with a 4 x 4 table takes it, all keys matched, each row of 8 positions read as two rows of 4 (logits off by 0.03).
# Why it matters: comparing the two is how a conversion is checked, and "convert, then compare" gives a difference that is not there, while
#   "compare a second conversion with the first" finds one that is. Pass {k: v.clone() for k, v in ...} to the filter, always.
set -euo pipefail
export OMP_NUM_THREADS=1
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$tmp/check.py" <<'E'
import torch, timm
from timm.models.naflexvit import checkpoint_filter_fn

def make(seed=0, **kw):
    torch.manual_seed(seed)
    kw = {"depth": 2, "num_classes": 10, "img_size": 64, **kw}
    vit = timm.create_model("vit_tiny_patch16_224", **kw).eval()
    for t in (vit.cls_token, vit.pos_embed):
        torch.nn.init.normal_(t, 0, 0.5)
    torch.nn.init.normal_(vit.head.weight, 0, 0.1)
    return vit, lambda **k: timm.create_model("vit_tiny_patch16_224", use_naflex=True, **{**kw, **k}).eval()

with torch.no_grad():
    vit, naflex = make()
    x = torch.randn(2, 3, 64, 64)
    before = vit(x)
    weights = vit.state_dict()
    apart = lambda a, b: float((a - b).abs().max())
    seen = []
    for n in range(3):
        model = naflex()
        said = model.load_state_dict(checkpoint_filter_fn(weights, model))
        seen.append((apart(model(x), before), apart(vit(x), before)))
        print(f"1. conversion {n + 1} of one dict: {said}; NaFlex apart from the ViT {seen[-1][0]:.2g}, the ViT from itself before {seen[-1][1]:.2g} (largest logit {float(before.abs().max()):.2f})")
    assert seen[0][0] < 1e-5 and seen[0][1] > 0.3 and seen[1][0] > 0.3 and seen[2][0] > seen[1][0]
    vit, naflex = make()
    before = vit(x)
    for n in range(2):
        model = naflex()
        model.load_state_dict(checkpoint_filter_fn({k: t.clone() for k, t in vit.state_dict().items()}, model))
        assert apart(model(x), before) < 1e-5 and apart(vit(x), before) == 0
    print("   with clones: both right, the ViT unchanged")

    for registers in range(5):
        vit, naflex = make(reg_tokens=registers)
        model = naflex()
        try:
            said = model.load_state_dict(checkpoint_filter_fn({k: t.clone() for k, t in vit.state_dict().items()}, model))
            d = apart(model(x), vit(x))
            print(f"2. {registers} registers: {said}; apart {d:.2g}")
            assert (d < 1e-5) if registers == 0 else (registers < 3 and d > 5e-3)
        except RuntimeError as e:
            print(f"2. {registers} registers: RuntimeError {str(e)[:70]}")
            assert registers >= 3

    vit, naflex = make(img_size=(32, 128))
    y = torch.randn(2, 3, 32, 128)
    renamed = lambda m: checkpoint_filter_fn({k: t.clone() for k, t in vit.state_dict().items()}, m)
    model = naflex()
    shapes = tuple(model.embeds.pos_embed.shape), tuple(renamed(model)["embeds.pos_embed"].shape)
    print("3. positions of 2 x 8 patches: the model's table", shapes[0], "the converted one", shapes[1])
    assert shapes[0][1:3] == (2, 8) and shapes[1][1:3] == (4, 4)
    model = naflex(img_size=64)
    said = model.load_state_dict(renamed(model))
    d = apart(model(y), vit(y))
    print(f"   loaded into a NaFlex model with a 4 x 4 table: {said}; on the 32 x 128 picture apart {d:.2g}")
    assert d > 5e-3
E
"$tmp/env/bin/python" "$tmp/check.py"
echo "as described"
