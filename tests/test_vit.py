"""The Vision Transformer against timm's stored outputs, against timm live, and against itself."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import minivit.attention
from minivit import AttentionRows, VisionTransformer, ViTConfig
from minivit.embeddings import resize_position_embedding
from tests.references.seeded import fingerprint, seeded, seeded_weights

REFERENCES = Path(__file__).parent / "references"
PICTURES = (2, 3, 32, 48)  # 4 rows x 6 cols of patches


def config(**options: Any) -> ViTConfig:
    """Two blocks, for pictures of 3:2."""
    return ViTConfig.from_name("debug_patch8_32", **({"image_size": (32, 48)} | options))


def make_model(config: ViTConfig, seed: int = 0) -> VisionTransformer:
    """In eval mode, with weights that leave nothing at zero."""
    model = VisionTransformer(config).eval()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(seeded_weights(shapes, seed))
    return model


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model() -> VisionTransformer:
    return make_model(config(depth=3, num_register_tokens=2))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(PICTURES)


@torch.no_grad()
def test_a_picture_becomes_tokens_and_the_class_token_becomes_logits(images: Tensor) -> None:
    """Equations 1 to 4 of the paper, by the model's own parts."""
    model = make_model(config())
    assert model.cls_token is not None and model.pos_embed is not None
    patches = model.patch_embed(images)  # (2, 3, 32, 48) -> (2, 24, 32)
    z = torch.cat([model.cls_token.expand(2, -1, -1), patches], dim=1) + model.pos_embed
    for block in model.blocks:
        z, _ = block(z)
    y = model.norm(z)[:, 0]
    torch.testing.assert_close(model(images), model.head(y))


# ---- stored outputs ----------------------------------------------------------------------------

REGISTERS = {"num_register_tokens": 3, "pos_embed_prefix": False, "layer_scale": 0.1}
# The models of references/make_vit.py in minivit's words, and the pictures that they were shown.
STORED = {
    "class_token": (config(), PICTURES),
    "distilled": (
        ViTConfig.from_name("tiny_patch16_224", image_size=(64, 96), distillation_token=True),
        (2, 3, 64, 96),
    ),
    "registers": (config(**REGISTERS), PICTURES),
    "registers_larger": (config(image_size=(24, 24), **REGISTERS), (2, 3, 48, 72)),
    "registers_smaller": (config(image_size=(80, 80), **REGISTERS), PICTURES),
    "mean_pooling": (config(pooling="mean", fc_norm=True), PICTURES),
    "no_class_token": (config(pooling="mean", class_token=False), PICTURES),
    "clip": (
        config(norm_pre=True, patch_bias=False, activation="quick_gelu", layer_norm_eps=1e-5),
        PICTURES,
    ),
    "features": (
        config(
            patch_size=(8, 4),
            in_channels=1,
            num_classes=0,
            qkv_bias=False,
            activation="gelu_tanh",
            hidden_dim=72,
            dim=36,
            num_heads=3,
        ),
        (1, 1, 32, 48),
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_outputs_are_timms_stored_ones(name: str) -> None:
    """Logits, tokens after the norm, and the attention maps of every stored block."""
    model_config, size = STORED[name]
    file = REFERENCES / f"vit_{name}.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    expected = load_file(file)
    seed = int(metadata["seed"])
    model, images = make_model(model_config, seed), seeded("pictures", size, seed)
    # Not the same numbers as in the script? Then there is nothing to compare.
    assert fingerprint({"pictures": images}) == metadata["pictures"]
    assert fingerprint(dict(model.state_dict())) == metadata["weights"]

    blocks = sorted(int(key.split(".")[1]) for key in expected if key.startswith("attention."))
    with torch.no_grad():
        logits, attentions = model(images, return_attention=blocks)
        tokens = model.encode(images)
        plain = model(images)
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(plain, expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens, expected["tokens"], atol=1e-4, rtol=0)
    for block, attention in zip(blocks, attentions, strict=True):
        torch.testing.assert_close(attention, expected[f"attention.{block}"], atol=1e-5, rtol=0)


def test_every_stored_output_is_compared() -> None:
    assert {path.stem.removeprefix("vit_") for path in REFERENCES.glob("vit_*")} == STORED.keys()


# ---- what comes out ----------------------------------------------------------------------------


@torch.no_grad()
def test_shapes(model: VisionTransformer, images: Tensor) -> None:
    assert model.grid_size == (4, 6) and model.num_prefix_tokens == 3
    assert model(images).shape == (2, 10)
    assert model.encode(images).shape == (2, 27, 32)
    logits, attentions = model(images, return_attention=True)
    assert logits.shape == (2, 10)
    assert [tuple(a.shape) for a in attentions] == [(2, 2, 27, 27)] * 3
    tokens, attentions = model.encode(images, return_attention=[1])
    assert tokens.shape == (2, 27, 32) and len(attentions) == 1


@torch.no_grad()
def test_forward_is_encode_and_classify(model: VisionTransformer, images: Tensor) -> None:
    assert torch.equal(model(images), model.classify(model.encode(images)))


@torch.no_grad()
def test_the_inspected_path_is_the_fast_path(model: VisionTransformer, images: Tensor) -> None:
    plain = model(images)
    logits, attentions = model(images, return_attention=True)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
    for attention in attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 2, 27), atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [[1], [-1], [2, 0], [-1, -1, 0], [], (0, -3), range(3)])
@torch.no_grad()
def test_chosen_blocks_come_in_the_order_asked_for(
    model: VisionTransformer, images: Tensor, blocks: Sequence[int]
) -> None:
    plain, every = model(images, return_attention=True)
    logits, chosen = model(images, return_attention=blocks)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
    assert len(chosen) == len(blocks)
    for block, attention in zip(blocks, chosen, strict=True):
        torch.testing.assert_close(attention, every[block], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("return_attention", "fused"),
    [(False, 3), (True, 0), ([-1], 2), ([0, 0], 2), ([], 3), (AttentionRows([0, -1], [0]), 3)],
)
@torch.no_grad()
def test_only_the_chosen_blocks_leave_the_fused_kernel(
    model: VisionTransformer,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    return_attention: Any,
    fused: int,
) -> None:
    calls = 0
    kernel = F.scaled_dot_product_attention

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return kernel(*args, **kwargs)

    monkeypatch.setattr(minivit.attention.F, "scaled_dot_product_attention", counting)
    model(images, return_attention=return_attention)
    assert calls == fused


@pytest.mark.parametrize("recorded", [False, True])
def test_rows_leave_the_logits_as_they_are_bit_for_bit(
    model: VisionTransformer, images: Tensor, recorded: bool
) -> None:
    rows = AttentionRows(blocks=[-1, 0], queries=[0, 5, -1])
    with torch.set_grad_enabled(recorded):
        plain = model(images)
        logits, chosen = model(images, return_attention=rows)
        _, full = model(images, return_attention=rows.blocks)
    assert torch.equal(logits, plain)
    for some, every in zip(chosen, full, strict=True):
        assert some.shape == (2, 2, 3, 27)
        torch.testing.assert_close(some, every[:, :, [0, 5, 26]], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "return_attention", [False, True, [-1], AttentionRows(blocks=[0], queries=[0, 5])]
)
@torch.no_grad()
def test_the_model_compiles_as_one_graph(images: Tensor, return_attention: Any) -> None:
    model = make_model(config())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    outputs = compiled(images, return_attention=return_attention)
    torch.testing.assert_close(outputs, model(images, return_attention=return_attention))


@torch.no_grad()
def test_a_compiled_model_takes_all_sizes_with_two_graphs() -> None:
    """One for the first size, one for all others; a graph a size ends after eight, uncompiled."""
    graphs: list[Any] = []

    def count(graph: Any, _examples: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    model = make_model(config())
    compiled = torch.compile(model, backend=count)
    sizes = [(40, 40), (56, 56), (64, 96), (96, 64), (72, 72), (80, 80), (88, 88), (104, 48)]
    for height, width in [*sizes, (48, 104), (112, 112), (120, 40), (32, 160)]:
        images = torch.zeros(1, 3, height, width)
        torch.testing.assert_close(compiled(images), model(images))
    assert len(graphs) == 2


def test_a_config_whose_picture_is_not_whole_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"30x48 pixels .* patches of 8x8"):
        VisionTransformer(config(image_size=(30, 48)))


@pytest.mark.parametrize("block", [3, -4, 100])
def test_a_block_that_is_not_there_is_refused(
    model: VisionTransformer, images: Tensor, block: int
) -> None:
    for return_attention in ([0, block], AttentionRows([block], [0])):
        with pytest.raises(IndexError, match=rf"block {block} .* 3 blocks.* -3 to 2"):
            model(images, return_attention=return_attention)


def test_a_row_that_is_not_there_is_refused(model: VisionTransformer, images: Tensor) -> None:
    with pytest.raises(IndexError, match=r"row 27 .* 27 query tokens.* -27 to 26"):
        model(images, return_attention=AttentionRows([0], [27]))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_rows_have_the_gradient_of_the_logits(
    model: VisionTransformer, images: Tensor, checkpointed: bool
) -> None:
    """It is that of the whole map; the weights of the model have theirs as without rows."""
    model.train(checkpointed).gradient_checkpointing = checkpointed
    queries = [0, 5, -1]
    logits, full = model(images, return_attention=[0, -1])
    expected = torch.autograd.grad(logits[:, 1].sum(), list(full))
    logits, rows = model(images, return_attention=AttentionRows([0, -1], queries))
    for each in rows:
        each.retain_grad()
    logits[:, 1].sum().backward()
    for each, gradient in zip(rows, expected, strict=True):
        assert each.grad is not None and each.grad.abs().max() > 1e-3
        torch.testing.assert_close(each.grad, gradient[:, :, queries], atol=1e-5, rtol=1e-4)
    learned = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model(images)[:, 1].sum().backward()
    for gradient, parameter in zip(learned, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-5, rtol=1e-4)


def test_attention_carries_gradients(model: VisionTransformer, images: Tensor) -> None:
    for return_attention in (True, [0], AttentionRows([0], [0])):
        _, attentions = model(images, return_attention=return_attention)
        model.zero_grad()
        attentions[0][:, :, 0, -1].sum().backward()
        gradient = model.patch_embed.proj.weight.grad
        assert gradient is not None and gradient.abs().max() > 0


def test_the_gradient_of_the_logits_reaches_every_map(
    model: VisionTransformer, images: Tensor
) -> None:
    """What gradient methods of explanation need."""
    logits, attentions = model(images, return_attention=True)
    for gradient in torch.autograd.grad(logits[:, 3].sum(), attentions):
        assert gradient.shape == (2, 2, 27, 27) and gradient.abs().max() > 0


@torch.no_grad()
def test_logits_without_a_head_are_pooled_features(images: Tensor) -> None:
    for pooling in ("cls", "mean"):
        model = make_model(config(num_classes=0, pooling=pooling, num_register_tokens=2))
        tokens = model.encode(images)
        expected = tokens[:, 0] if pooling == "cls" else tokens[:, 3:].mean(1)
        torch.testing.assert_close(model(images), expected)


@torch.no_grad()
def test_the_representation_layer_is_a_tanh_before_the_head(images: Tensor) -> None:
    model = make_model(config(representation_dim=20))
    linear = model.get_submodule("pre_logits.0")
    assert isinstance(linear, nn.Linear) and model.head.weight.shape == (10, 20)
    hidden = linear(model.encode(images)[:, 0]).tanh()
    torch.testing.assert_close(model(images), model.head(hidden))


@pytest.mark.parametrize("head_blocks", [1, 3])
@torch.no_grad()
def test_a_head_on_class_tokens_and_patch_mean(images: Tensor, head_blocks: int) -> None:
    """Class tokens from the earliest block to the last, each normalised, then the patch mean."""
    options = {"pooling": "cls_and_mean", "head_blocks": head_blocks, "depth": 4}
    model = make_model(config(num_register_tokens=2, **options))
    seen = []
    for block in model.blocks[-head_blocks:]:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    logits, _ = model(images, return_attention=[0])
    class_tokens = [model.norm(tokens)[:, 0] for tokens in seen]
    features = torch.cat([*class_tokens, model.norm(seen[-1])[:, 3:].mean(1)], dim=1)
    assert features.shape == (2, 32 * (1 + head_blocks)) and len(seen) == head_blocks
    torch.testing.assert_close(logits, model.head(features))
    torch.testing.assert_close(model(images), logits)


def test_classify_asks_for_the_class_tokens_it_needs(images: Tensor) -> None:
    model = make_model(config(pooling="cls_and_mean", head_blocks=2))
    tokens = model.encode(images)
    with pytest.raises(ValueError, match="of 2 blocks: found 0 of blocks before the last, expect"):
        model.classify(tokens)
    assert model.classify(tokens, [tokens[:, 0]]).shape == (2, 10)


# ---- any picture size --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pos_embed_prefix": False, "num_register_tokens": 2},
        {"pos_embed_antialias": False, "pos_embed_offset": 0.1},
        {"distillation_token": True},
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (16, 56), (48, 32)])
@torch.no_grad()
def test_another_size_is_a_model_with_resized_positions(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    model = make_model(config(**options))
    other = make_model(config(**options | {"image_size": size}))
    weights = dict(model.state_dict())
    weights["pos_embed"] = resize_position_embedding(
        weights["pos_embed"],
        (4, 6),
        (size[0] // 8, size[1] // 8),
        antialias=model.config.pos_embed_antialias,
        offset=model.config.pos_embed_offset,
    )
    other.load_state_dict(weights)
    images = torch.randn(1, 3, *size)
    torch.testing.assert_close(model(images), other(images), atol=1e-5, rtol=0)
    assert model.grid_size == (4, 6)  # the config's, whatever was shown


@torch.no_grad()
def test_sine_positions_have_no_weights_and_any_size() -> None:
    model = make_model(config(pos_embed="sine"))
    assert model.pos_embed is None and "pos_embed" not in model.state_dict()
    for size in ((32, 48), (48, 64)):
        assert model(torch.randn(1, 3, *size)).shape == (1, 10)
    images = torch.randn(1, 3, 32, 48)
    shifted = images.roll(8, dims=3)
    assert not torch.allclose(model(images), model(shifted), atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 1, 32, 48), (2, 4, 32, 48), (3, 32, 48), (1, 2, 3, 32, 48)])
def test_pictures_of_another_form_are_refused(
    model: VisionTransformer, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, height, width\)") as error:
        model(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("size", [(30, 48), (32, 47), (4, 48)])
def test_pictures_that_are_not_whole_patches_are_refused(
    model: VisionTransformer, size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} pixels .* patches of 8x8"):
        model(torch.zeros(1, 3, *size))


def test_labels_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="3 labels for 10 classes"):
        VisionTransformer(config(), labels=["a", "b", "c"])
    assert VisionTransformer(config(), labels="abcdefghij").labels == tuple("abcdefghij")


# ---- properties --------------------------------------------------------------------------------


@settings(max_examples=20)
@given(order=st.permutations(range(24)), registers=st.integers(0, 2))
@torch.no_grad()
def test_permuted_patches_with_their_positions_are_permuted_tokens(
    order: list[int], registers: int
) -> None:
    """Attention knows no order: the picture is a set of patches that know where they are."""
    model = make_model(config(num_register_tokens=registers))
    images = seeded("pictures", PICTURES, 1)
    patches = rearrange(images, "b c (r h) (w p) -> (r w) b c h p", h=8, p=8)
    permuted = rearrange(patches[order], "(r w) b c h p -> b c (r h) (w p)", r=4)
    tokens, attentions = model.encode(images, return_attention=True)
    assert model.pos_embed is not None
    model.pos_embed[:, 1:] = model.pos_embed[:, 1:][:, order]
    moved, moved_attentions = model.encode(permuted, return_attention=True)
    prefix = model.num_prefix_tokens
    places = [*range(prefix), *(prefix + place for place in order)]
    torch.testing.assert_close(moved, tokens[:, places], atol=1e-4, rtol=0)
    for one, two in zip(moved_attentions, attentions, strict=True):
        torch.testing.assert_close(one, two[:, :, places][..., places], atol=1e-5, rtol=0)


@torch.no_grad()
def test_pictures_of_a_batch_do_not_see_each_other(
    model: VisionTransformer, images: Tensor
) -> None:
    together = model(images)
    apart = torch.cat([model(images[:1]), model(images[1:])])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_other_precisions(model: VisionTransformer, images: Tensor, dtype: torch.dtype) -> None:
    expected = model(images)
    model.to(dtype)
    for pictures in (images, torch.randn(1, 3, 48, 72)):  # positions as they are, and resized
        logits, attentions = model(pictures.to(dtype), return_attention=True)
        assert logits.dtype == dtype
        assert attentions[0].dtype == torch.promote_types(dtype, torch.float32)
    tolerance = 1e-4 if dtype == torch.float64 else 0.2
    logits = model(images.to(dtype)).float()
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)


def test_bfloat16_autocast(model: VisionTransformer, images: Tensor) -> None:
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(images)
        logits, _ = model(images, return_attention=True)
        same, _ = model(images, return_attention=AttentionRows([-1], [0]))
    assert torch.equal(plain, same)
    for output in (plain, logits):
        torch.testing.assert_close(output.float(), expected, atol=0.2, rtol=0)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- training ----------------------------------------------------------------------------------

NOISY = {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.3, "layer_scale": 0.5}


def test_noise_is_for_training(images: Tensor) -> None:
    model = make_model(config(**NOISY))
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_stochastic_depth_grows_linearly_from_zero() -> None:
    model = VisionTransformer(config(depth=5, drop_path=0.2))
    probabilities = [block.drop_path.probability for block in model.blocks]
    assert probabilities == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert VisionTransformer(config(depth=1, drop_path=0.2)).blocks[0].drop_path.probability == 0.0


@pytest.mark.parametrize("return_attention", [False, True, AttentionRows([-1], [0])])
def test_gradient_checkpointing_gives_the_same_gradients(
    images: Tensor, return_attention: Any
) -> None:
    """With the same noise, and by computing every block twice."""
    model = make_model(config(**NOISY)).train()
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for block in model.blocks:
        block.register_forward_pre_hook(count)
    gradients, counts = [], []
    for model.gradient_checkpointing in (False, True):
        torch.manual_seed(3)
        model.zero_grad()
        calls = 0
        output = model(images, return_attention=return_attention)
        logits, attentions = (output, []) if return_attention is False else output
        loss = logits.square().sum() + sum(a[:, :, 0].square().sum() for a in attentions)
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
        counts.append(calls)
    assert counts == [2, 4]
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


def test_gradient_checkpointing_is_idle_outside_training(
    model: VisionTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("recomputation was prepared")

    monkeypatch.setattr("minivit.vit.checkpoint", fail)
    model.gradient_checkpointing = True
    model(images)
    with torch.no_grad():
        model.train()(images)


def test_every_parameter_gets_a_gradient() -> None:
    cases = STORED | {"distilled": (config(distillation_token=True), PICTURES)}  # a smaller one
    for name, (model_config, size) in cases.items():
        model = make_model(model_config).train()
        model(torch.randn(size)).sin().sum().backward()
        idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not idle, f"{name}: {idle}"


# ---- the beginning -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def new_model() -> VisionTransformer:
    torch.manual_seed(1)
    options = {"depth": 2, "num_register_tokens": 4, "num_classes": 100, "representation_dim": 8}
    return VisionTransformer(ViTConfig.from_name("small_patch16_224", **options))


def test_a_new_model_says_nothing(new_model: VisionTransformer) -> None:
    """The head starts at zero: all classes are equally likely."""
    assert new_model.eval()(torch.randn(1, 3, 224, 224)).count_nonzero() == 0
    assert VisionTransformer(config()).training


def test_linear_layers_start_as_xavier_uniform(new_model: VisionTransformer) -> None:
    """Q, K and V as three square matrices."""
    for name, module in new_model.named_modules():
        if not isinstance(module, nn.Linear) or name == "head":
            continue
        parts = module.weight.chunk(3) if name.endswith("qkv") else [module.weight]
        for part in parts:
            bound = math.sqrt(6 / (part.shape[0] + part.shape[1]))
            assert part.abs().max() <= bound and part.abs().max() > 0.98 * bound
            assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        if ".mlp." in name:
            assert module.bias.std().item() == pytest.approx(1e-6, rel=0.2)
        else:
            assert module.bias.count_nonzero() == 0


def normal_starts(model: VisionTransformer) -> list[tuple[Tensor, float]]:
    """What starts as a normal distribution, and the standard deviation of the published code."""
    assert model.pos_embed is not None and model.reg_token is not None
    fan_in = 3 * 16 * 16
    return [
        (model.patch_embed.proj.weight, math.sqrt(1 / fan_in)),
        (model.pos_embed, 0.02),
        (model.reg_token, 0.02),
    ]


def test_patches_tokens_and_positions_start_as_published(new_model: VisionTransformer) -> None:
    for tensor, std in normal_starts(new_model):
        assert tensor.std().item() == pytest.approx(std, rel=0.05)
        assert abs(tensor.mean().item()) < 0.1 * std
    widest = 2 * math.sqrt(1 / (3 * 16 * 16)) / 0.8796  # cut at two deviations before the scaling
    assert 0.9 * widest < new_model.patch_embed.proj.weight.abs().max() <= widest
    assert new_model.cls_token is not None and 0.01 < new_model.cls_token.std() < 0.03
    assert new_model.patch_embed.proj.bias is not None
    assert new_model.patch_embed.proj.bias.count_nonzero() == 0


def test_norms_and_scales_start_as_published(new_model: VisionTransformer) -> None:
    for name, module in new_model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all() and (module.bias == 0).all()), name
            assert module.eps == 1e-6
    scaled = VisionTransformer(config(layer_scale=1e-5))
    assert torch.equal(scaled.blocks[0].ls2.gamma, torch.full((32,), 1e-5))


def test_the_same_seed_makes_the_same_model() -> None:
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(VisionTransformer(config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["pos_embed"], states[2]["pos_embed"])


# ---- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@torch.no_grad()
def test_models_can_be_copied(images: Tensor, how: str) -> None:
    model = make_model(config(distillation_token=True, **NOISY))
    twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert twin.config == model.config and twin.preprocess == model.preprocess
    before = model(images)
    assert torch.equal(twin(images), before)
    for parameter in twin.parameters():
        parameter.zero_()
    assert torch.equal(model(images), before)


# ---- live --------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("name", STORED)
def test_stored_outputs_are_what_their_script_makes(name: str) -> None:
    pytest.importorskip("timm")
    from tests.references import make_vit

    made, metadata = make_vit.make(name)
    file = REFERENCES / f"vit_{name}.safetensors"
    stored = load_file(file)
    with safe_open(file, framework="pt") as opened:
        for key in ("seed", "weights", "pictures"):
            assert opened.metadata()[key] == metadata[key]
    assert made.keys() == stored.keys()
    for key, tensor in made.items():
        torch.testing.assert_close(stored[key], tensor, atol=1e-5, rtol=0)


# timm's name, what it is made with, minivit's config, the size of the picture.
LIVE: dict[str, tuple[str, dict[str, Any], ViTConfig, tuple[int, int]]] = {
    "small_384": (
        "vit_small_patch16_384",
        {},
        ViTConfig.from_name("vit_small_patch16_384"),
        (384, 384),
    ),
    "tiny_wide": (
        "vit_tiny_patch16_224",
        {"dynamic_img_size": True, "depth": 3},
        ViTConfig.from_name("vit_tiny_patch16_224", depth=3),
        (192, 288),
    ),
    "distilled": (
        "deit_tiny_distilled_patch16_224",
        {"depth": 3},
        ViTConfig.from_name("vit_tiny_patch16_224", depth=3, distillation_token=True),
        (224, 224),
    ),
    "dinov2_registers": (
        "vit_small_patch14_reg4_dinov2",
        {"dynamic_img_size": True, "depth": 2},
        ViTConfig.from_name(
            "vit_small_patch14_518",
            depth=2,
            num_classes=0,
            num_register_tokens=4,
            pos_embed_prefix=False,
            layer_scale=1e-5,
        ),
        (140, 210),
    ),
    "clip": (
        "vit_base_patch32_clip_quickgelu_224",
        {"depth": 2, "img_size": (224, 320), "num_classes": 7},
        ViTConfig.from_name(
            "vit_base_patch32_224",
            image_size=(224, 320),
            depth=2,
            num_classes=7,
            norm_pre=True,
            patch_bias=False,
            activation="quick_gelu",
            layer_norm_eps=1e-5,
        ),
        (224, 320),
    ),
    "mean_pooling": (
        "vit_small_patch16_224",
        {"global_pool": "avg", "depth": 2, "img_size": (96, 144)},
        ViTConfig.from_name(
            "vit_small_patch16_224",
            image_size=(96, 144),
            depth=2,
            pooling="mean",
            fc_norm=True,
        ),
        (96, 144),
    ),
}


def twins(name: str) -> tuple[nn.Module, VisionTransformer]:
    """timm's model and ours, with the same weights."""
    timm = pytest.importorskip("timm")
    timms_name, options, model_config, _ = LIVE[name]
    theirs = timm.create_model(timms_name, **options).eval()
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(seeded_weights(shapes, 5))
    ours = VisionTransformer(model_config).eval()
    ours.load_state_dict(theirs.state_dict())  # strict: the names are the same
    return theirs, ours


@pytest.mark.parity
@pytest.mark.parametrize("name", LIVE)
@torch.no_grad()
def test_outputs_are_timms(name: str) -> None:
    theirs, ours = twins(name)
    from tests.references.make_vit import attention_maps

    maps = attention_maps(theirs)
    images = torch.randn(1, 3, *LIVE[name][3])
    expected = theirs(images)
    logits, attentions = ours(images, return_attention=True)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=0)
    assert len(attentions) == len(maps)
    for block, attention in enumerate(attentions):
        torch.testing.assert_close(attention, maps[block], atol=1e-5, rtol=0)


@pytest.mark.parity
def test_gradients_are_timms() -> None:
    theirs, ours = twins("mean_pooling")
    images = torch.randn(2, 3, 96, 144)
    labels = torch.tensor([1, 2])
    for model in (theirs, ours):
        F.cross_entropy(model(images), labels).backward()
    expected = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            expected[key].grad,
            atol=1e-5,
            rtol=1e-3,
            msg=lambda m, k=key: f"{k}: {m}",
        )


def test_without_a_final_norm_the_head_sees_what_the_last_block_gives(images: Tensor) -> None:
    """CLIP's classifier in transformers: mean of the patches, no LayerNorm after the blocks."""
    model = make_model(config(pooling="mean", final_norm=False))
    assert not any(name.startswith(("norm.", "fc_norm.")) for name in model.state_dict())
    tokens = model.embed(images)
    for block in model.blocks:
        tokens, _ = block(tokens)
    assert torch.equal(model.encode(images), tokens)
    assert torch.equal(model(images), model.head(tokens[:, 1:].mean(dim=1)))
    with pytest.raises(ValueError, match="fc_norm is the final norm"):
        config(fc_norm=True, final_norm=False)


def test_a_model_of_one_channel_prepares_grey_photos_by_default() -> None:
    model = make_model(config(in_channels=1))
    photo = Image.new("RGB", (60, 40), (255, 0, 0))
    assert model(model.preprocess(photo)[None]).shape == (1, 10)
