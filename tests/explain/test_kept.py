"""Pictures with some of their patches: against a forward pass by hand, and what must hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import logits_of_kept
from tests.explain.sharpened import PATCH, SIZE, VARIANTS, WIDE, make_images, make_model, untouched

KEEP = torch.tensor([[0, 5, 7, 34, 13], [35, 1, 2, 16, 10]])


def norm(x: Tensor, layer: Any) -> Tensor:
    if not isinstance(layer, torch.nn.LayerNorm):
        return x
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return centred / scale * layer.weight + layer.bias


def gelu(x: Tensor, name: str) -> Tensor:
    if name == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


@torch.no_grad()
def by_hand(model: VisionTransformer, image: Tensor, keep: list[int]) -> Tensor:
    """Logits (classes,) of one picture of the config's size, token by token."""
    config = model.config
    (high, wide), (rows, cols) = config.patch_size, config.grid_size
    kernel = model.patch_embed.proj
    placed = [token for token in (model.cls_token, model.dist_token) if token is not None]
    tokens = [token[0, 0] for token in placed]
    assert model.pos_embed is not None
    first = model.pos_embed.shape[1] - rows * cols
    for number in range(first):
        tokens[number] = tokens[number] + model.pos_embed[0, number]
    if model.reg_token is not None:
        tokens += list(model.reg_token[0])
    num_prefix = len(tokens)
    for number in keep:
        top, left = number // cols * high, number % cols * wide
        pixels = image[:, top : top + high, left : left + wide]
        token = (kernel.weight * pixels).sum((1, 2, 3)) + kernel.bias
        tokens.append(token + model.pos_embed[0, first + number])
    x = norm(torch.stack(tokens), model.norm_pre)
    seen = []
    for block in model.blocks:
        normed = norm(x, block.norm1)
        qkv = normed @ block.attn.qkv.weight.T + block.attn.qkv.bias
        heads = []
        for q, k, v in zip(
            *(part.chunk(config.num_heads, 1) for part in qkv.chunk(3, 1)), strict=True
        ):
            heads.append((q @ k.T / math.sqrt(q.shape[1])).softmax(1) @ v)
        x = x + torch.cat(heads, 1) @ block.attn.proj.weight.T + block.attn.proj.bias
        hidden = norm(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
        x = x + gelu(hidden, config.activation) @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
        seen.append(norm(x, model.norm))
    x = seen[-1]
    pooled = x[0] if config.pooling == "cls" else x[num_prefix:].mean(0)
    if config.pooling == "cls_and_mean":
        pooled = torch.cat([tokens[0] for tokens in seen[-config.head_blocks :]] + [pooled])
    logits = model.head(norm(pooled, model.fc_norm))
    return logits if model.head_dist is None else (logits + model.head_dist(x[1])) / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_forward_pass_by_hand(variant: str) -> None:
    model, images = make_model(variant), make_images()
    logits = logits_of_kept(model, images, KEEP)
    expected = torch.stack(
        [by_hand(model, image, keep.tolist()) for image, keep in zip(images, KEEP, strict=True)]
    )
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    assert not logits.requires_grad


@pytest.mark.parametrize("size", [SIZE, WIDE])
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_patches_in_any_order_are_the_picture(variant: str, size: tuple[int, int]) -> None:
    model, images = make_model(variant), make_images(size=size)
    count = images[0, 0].numel() // math.prod(PATCH)
    keep = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(logits_of_kept(model, images, keep), model(images))


def test_what_a_hidden_patch_shows_does_not_matter_and_what_a_kept_one_shows_does() -> None:
    model, images = make_model("registers"), make_images()
    rows, cols = slice(6, 12), slice(8, 12)  # patch 11: row 1, col 2
    other = images.clone()
    other[..., rows, cols] += 1
    hidden = torch.tensor([patch for patch in range(36) if patch != 11])
    assert torch.equal(logits_of_kept(model, images, hidden), logits_of_kept(model, other, hidden))
    kept = torch.tensor([11, 12])
    before, after = (logits_of_kept(model, each, kept) for each in (images, other))
    assert float((before - after).abs().min()) > 1e-6


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    model, images = make_model(), make_images(3)
    keep = torch.stack([torch.arange(4), torch.arange(8, 12), torch.arange(20, 24)])
    together = logits_of_kept(model, images, keep)
    alone = [logits_of_kept(model, images[i : i + 1], keep[i]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_without_any_patch_a_class_token_says_what_it_says_of_all_pictures() -> None:
    model, images = make_model("registers"), make_images()
    nothing = torch.zeros(0, dtype=torch.long)
    logits = logits_of_kept(model, images, nothing)
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[0], by_hand(model, images[0], []))
    for variant in ("mean", "both"):
        with pytest.raises(ValueError, match="no patch is kept"):
            logits_of_kept(make_model(variant), images, nothing)


def test_a_model_without_a_head_gives_features() -> None:
    model = make_model(num_classes=0)
    assert logits_of_kept(model, make_images(), KEEP).shape == (2, 24)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.tensor([[0, 1]]), r"keep is \(1, 2\), expected .* 2 pictures"),
        (torch.tensor(3), r"keep is \(\), expected"),
        (torch.tensor([0.0, 1.0]), "keep is torch.float32, expected whole numbers"),
        (torch.ones(36, dtype=torch.bool), "keep is torch.bool, expected whole numbers"),
        (torch.tensor([0, 36]), "keep has patch 36: choose from 0 to 35"),
        (torch.tensor([-1, 3]), "keep has patch -1: choose from 0 to 35"),
        (torch.tensor([3, 4, 3]), "names a patch twice"),
    ],
)
def test_bad_choices_are_refused(keep: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logits_of_kept(make_model(), make_images(), keep)


def test_dropout_is_off_inside_and_nothing_is_left_behind() -> None:
    model, images = make_model(dropout=0.5, drop_path=0.5).train(), make_images()
    with untouched(model, images):
        first, second = (logits_of_kept(model, images, KEEP) for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="twice"), untouched(model, images):
        logits_of_kept(model, images, torch.tensor([1, 1]))
