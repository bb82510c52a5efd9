"""Encoder blocks against torch's own, and their parts one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minivit.attention import causal_mask
from minivit.blocks import ACTIVATIONS, MLP, DropPath, EncoderBlock, LayerScale, quick_gelu
from minivit.config import Activation
from tests.block_cases import CONFIG, B, D, H, N, padding, randomize


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_attention_and_then_an_mlp_are_added_to_the_tokens() -> None:
    """Two sums; what is added is computed from normalised tokens."""
    block = EncoderBlock(CONFIG)
    randomize(block)
    x = torch.randn(B, N, D)
    attended, expected_weights = block.attn(block.norm1(x), need_weights=True)
    h = x + attended
    expected = h + block.mlp(block.norm2(h))
    out, weights = block(x, need_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)


# ---- against torch.nn.TransformerEncoderLayer --------------------------------------------------


def twins(norm_first: bool, activation: Activation) -> tuple[EncoderBlock, nn.Module]:
    theirs = nn.TransformerEncoderLayer(
        D,
        H,
        dim_feedforward=CONFIG.hidden_dim,
        dropout=0.0,
        activation=activation,
        layer_norm_eps=CONFIG.layer_norm_eps,
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    config = replace(CONFIG, activation=activation, norm_first=norm_first)
    ours = EncoderBlock(config).double()
    randomize(theirs)
    ours.load_state_dict(
        {
            "norm1.weight": theirs.norm1.weight,
            "norm1.bias": theirs.norm1.bias,
            "attn.qkv.weight": theirs.self_attn.in_proj_weight,
            "attn.qkv.bias": theirs.self_attn.in_proj_bias,
            "attn.proj.weight": theirs.self_attn.out_proj.weight,
            "attn.proj.bias": theirs.self_attn.out_proj.bias,
            "norm2.weight": theirs.norm2.weight,
            "norm2.bias": theirs.norm2.bias,
            "mlp.fc1.weight": theirs.linear1.weight,
            "mlp.fc1.bias": theirs.linear1.bias,
            "mlp.fc2.weight": theirs.linear2.weight,
            "mlp.fc2.bias": theirs.linear2.bias,
        }
    )
    return ours, theirs


@pytest.mark.parametrize("masked", ["none", "padding", "boolean", "causal", "causal and padding"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_block_is_torchs(norm_first: bool, activation: Activation, masked: str) -> None:
    ours, theirs = twins(norm_first, activation)
    x = torch.randn(B, N, D, dtype=torch.float64)
    mask = None
    if masked == "boolean":
        mask = torch.rand(N, N) > 0.4
        mask[:, 0] = True
    keys = padding((3, 5), N) if "padding" in masked else None
    their_mask = causal_mask(N, N) if "causal" in masked else mask
    expected = theirs(
        x,
        src_mask=None if their_mask is None else ~their_mask,
        src_key_padding_mask=None if keys is None else ~keys,
    )
    normed = theirs.norm1(x) if norm_first else x
    _, expected_weights = theirs.self_attn(
        normed,
        normed,
        normed,
        attn_mask=None if their_mask is None else ~their_mask,
        key_padding_mask=None if keys is None else ~keys,
        average_attn_weights=False,
    )
    arguments = {"mask": mask, "key_mask": keys, "is_causal": "causal" in masked}
    output, none = ours(x, **arguments)
    assert none is None
    torch.testing.assert_close(output, expected)
    output, weights = ours(x, **arguments, need_weights=True)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)
    output, rows = ours(x, **arguments, rows=[-1, 0])
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(rows, expected_weights[:, :, [-1, 0]])


@pytest.mark.parametrize("norm_first", [False, True])
def test_without_gradients_a_block_gives_the_same_and_leaves_its_input_alone(
    norm_first: bool,
) -> None:
    block = EncoderBlock(replace(CONFIG, norm_first=norm_first))
    randomize(block)
    x = torch.randn(B, N, D)
    before = x.clone()
    expected, _ = block(x)
    with torch.no_grad():
        outputs = [block(x)[0] for _ in range(2)]
    assert torch.equal(outputs[0], expected) and torch.equal(outputs[1], expected)
    assert torch.equal(x, before)


def test_what_a_hook_kept_stays_what_it_was() -> None:
    block = EncoderBlock(CONFIG)
    randomize(block)
    x = torch.randn(B, N, D)
    kept = []
    block.attn.register_forward_hook(lambda _module, _inputs, output: kept.append(output[0]))
    block.mlp.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    block(x)
    with torch.no_grad():
        block(x)
    torch.testing.assert_close(kept[2:], kept[:2])


@pytest.mark.parametrize("options", [{}, {"need_weights": True}, {"rows": [0, -1]}])
def test_a_block_compiles_as_one_graph(options: dict[str, object]) -> None:
    """The old names of arguments, which it still takes, do not break the graph."""
    block, x = EncoderBlock(CONFIG).eval(), torch.randn(B, N, D)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    keys = padding((3, 5), N)
    for output, expected in zip(
        compiled(x, key_mask=keys, **options), block(x, key_mask=keys, **options), strict=True
    ):
        torch.testing.assert_close(output, expected)


def test_arguments_of_before_are_still_taken() -> None:
    block, x, keys = EncoderBlock(CONFIG), torch.randn(B, N, D), padding((3, 5), N)
    expected, rows = block(x, key_mask=keys, rows=[2])
    with pytest.warns(DeprecationWarning, match="key_padding_mask is called key_mask now"):
        assert torch.equal(block(x, key_padding_mask=keys)[0], expected)
    with pytest.warns(DeprecationWarning, match="called rows"):
        assert torch.equal(block(x, key_mask=keys, need_weights=[2])[1], rows)


# ---- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [("gelu", nn.GELU()), ("gelu_tanh", nn.GELU(approximate="tanh")), ("relu", nn.ReLU())],
)
def test_activations_are_torchs(name: str, module: nn.Module) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), module(x))


@pytest.mark.parametrize("x", [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0])
def test_activations_are_their_formulas(x: float) -> None:
    """The three GELUs differ by up to 0.02: enough to spoil a logit, too little to see."""
    tanh = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    expected = {
        "gelu": x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + tanh) / 2,
        "quick_gelu": x / (1 + math.exp(-1.702 * x)),
        "relu": max(x, 0.0),
    }
    assert expected.keys() == ACTIVATIONS.keys() - {"swiglu"}
    for name, value in expected.items():
        activated = ACTIVATIONS[name](torch.tensor(x, dtype=torch.float64)).item()
        assert activated == pytest.approx(value, abs=1e-12)


def test_swiglu_gates_the_second_half_with_the_first() -> None:
    x = torch.tensor([0.5, -2.0, 3.0, 7.0], dtype=torch.float64)
    gate = [0.5 / (1 + math.exp(-0.5)), -2.0 / (1 + math.exp(2.0))]
    expected = torch.tensor([gate[0] * 3.0, gate[1] * 7.0], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS["swiglu"](x), expected)
    mlp = MLP(D, 20, activation="swiglu")
    assert mlp.fc1.weight.shape == (40, D) and mlp.fc2.weight.shape == (D, 20)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_mlp_uses_the_activation_it_was_asked_for(name: str) -> None:
    mlp = MLP(D, 20, activation=name)
    x = torch.randn(B, N, D)
    hidden = ACTIVATIONS[name](F.linear(x, mlp.fc1.weight, mlp.fc1.bias))
    torch.testing.assert_close(mlp(x), F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias))


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'swish': choose from gelu, gelu_tanh, quick_gelu, relu"):
        MLP(D, 20, activation="swish")


def test_mlp_drops_hidden_units_in_training_only() -> None:
    mlp = MLP(D, 20, activation="gelu", dropout=0.5)
    x = torch.randn(B, N, D)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_drop_path_drops_whole_samples_and_keeps_the_mean(probability: float) -> None:
    count = 20_000
    x = torch.rand(count, 2, 3) + 1.0
    output = DropPath(probability).train()(x)
    dropped = (output == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    dropped = dropped.all(1)
    torch.testing.assert_close(output[~dropped], x[~dropped] / (1 - probability))
    spread = math.sqrt(probability * (1 - probability) / count)
    assert dropped.float().mean().item() == pytest.approx(probability, abs=4 * spread)


def test_drop_path_does_nothing_in_eval_or_at_probability_zero() -> None:
    x = torch.randn(3, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_drop_path_refuses_what_is_no_probability(probability: float) -> None:
    with pytest.raises(ValueError, match=f"{probability}"):
        DropPath(probability)


def test_both_branches_of_a_block_are_dropped_independently() -> None:
    block = EncoderBlock(CONFIG, drop_path=0.5)
    randomize(block)
    x = torch.randn(1, N, D).expand(64, -1, -1)
    with torch.no_grad():
        output, _ = block(x)
    kinds = {tuple(sample.flatten()[:4].tolist()) for sample in output}
    assert len(kinds) == 4  # both branches, one of them, the other, none
    assert tuple(x[0].flatten()[:4].tolist()) in kinds


@pytest.mark.parametrize("norm_first", [False, True])
def test_layer_scale_scales_the_ends_of_both_branches(norm_first: bool) -> None:
    block = EncoderBlock(replace(CONFIG, norm_first=norm_first, layer_scale=0.25))
    assert torch.equal(block.ls1.gamma, torch.full((D,), 0.25))
    plain = EncoderBlock(replace(CONFIG, norm_first=norm_first))
    randomize(block)
    weights = {name: value for name, value in block.state_dict().items() if "gamma" not in name}
    for scale, end in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
        gamma = block.state_dict()[scale]
        weights[f"{end}.weight"] = gamma[:, None] * weights[f"{end}.weight"]
        weights[f"{end}.bias"] = gamma * weights[f"{end}.bias"]
    plain.load_state_dict(weights)
    x = torch.randn(B, N, D)
    torch.testing.assert_close(block(x)[0], plain(x)[0])


def test_layer_scale_has_a_factor_a_channel() -> None:
    scale = LayerScale(3, 1e-5)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert scale(torch.ones(1, 2, 3)).tolist() == [[[1.0, 2.0, 3.0]] * 2]


@pytest.mark.parametrize("option", ["dropout", "attention_dropout"])
def test_dropout_of_a_block_is_for_training(option: str) -> None:
    block, x = EncoderBlock(replace(CONFIG, **{option: 0.5})), torch.randn(B, N, D)
    assert not torch.equal(block(x)[0], block(x)[0])
    block.eval()
    assert torch.equal(block(x)[0], block(x)[0])


def test_quick_gelu_is_not_gelu() -> None:
    x = torch.linspace(-3, 3, 61)
    assert 0.01 < (quick_gelu(x) - F.gelu(x)).abs().max() < 0.03
