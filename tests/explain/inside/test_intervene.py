"""Interventions against a forward pass written out by hand, and what they leave behind: nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

import minivit.attention
from minivit import AttentionRows, VisionTransformer
from minivit.explain import Recording, intervene, record
from tests.explain.by_hand import CONFIGS, Change, forward, make_images, make_model
from tests.explain.untouched import untouched

STREAM = ("attention", "mlps", "blocks", "outputs")
TOKENS = [None, [0, 5, -1]]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def assert_far(first: Tensor, second: Tensor) -> None:
    """So far apart that a replacement that was not made would be noticed."""
    assert bool(((first - second).abs().amax(dim=-1) > 1e-3).all())


@torch.no_grad()
def keep_by_hand(model: VisionTransformer, images: Tensor) -> dict[tuple[str, int], Tensor]:
    """Every part of the pass that is written out."""
    parts: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, block: int, value: Tensor) -> Tensor:
        parts[part, block] = value
        return value

    forward(model, images, keep)
    return parts


def at(place: tuple[str, int], new: Any, *, dim: int = 1, tokens: Any = None) -> Change:
    """A change of one part: new numbers, by a function of the old ones, at some tokens."""

    def change(part: str, block: int, value: Tensor) -> Tensor:
        if (part, block) != place:
            return value
        replaced = new(value).expand_as(value)
        if tokens is None:
            return replaced
        changed = value.clone()
        for token in tokens:
            changed.select(dim, token).copy_(replaced.select(dim, token))
        return changed

    return change


@pytest.fixture
def model() -> VisionTransformer:
    return make_model(**CONFIGS["registers"])


# ---- what is replaced ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_model_is_what_is_written_out_and_its_parts_are_recorded(name: str) -> None:
    model, images = make_model(**CONFIGS[name]), make_images()
    with record(model) as recording:
        assert_same(model(images), forward(model, images))
    expected = keep_by_hand(model, images)
    assert len(recording.values) == 1 + 5 * 3
    for key, part in recording.values.items():
        other = expected[key].transpose(1, 2) if key[0] == "heads" else expected[key]
        assert_same(part, other)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("by", [0.0, 0.5, -2, "mean"])
@pytest.mark.parametrize("part", STREAM)
@torch.no_grad()
def test_a_branch_is_scaled_or_averaged(
    model: VisionTransformer, part: Any, by: Any, tokens: Any
) -> None:
    images = make_images()

    def new(value: Tensor) -> Tensor:
        return value.mean(1, keepdim=True) if by == "mean" else value * by

    for block in (0, 2):
        expected = forward(model, images, at((part, block), new, tokens=tokens))
        with intervene(model, **{part: [block]}, by=by, tokens=tokens):
            changed = model(images)
        assert_same(changed, expected)
        if (part, block, by) != ("outputs", 2, 0.5):  # the last norm does not see a scale
            assert_far(changed, model(images))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("by", [0.0, 3.0, "mean"])
@torch.no_grad()
def test_heads_are_scaled_or_averaged(model: VisionTransformer, by: Any, tokens: Any) -> None:
    images = make_images()

    def new(value: Tensor) -> Tensor:
        other = value.mean(2, keepdim=True) if by == "mean" else value * by
        return torch.stack([other.expand_as(value)[:, 0], *value[:, 1:3].unbind(1),
                            other.expand_as(value)[:, 3]], 1)  # fmt: skip

    expected = forward(model, images, at(("heads", 1), new, dim=2, tokens=tokens))
    with intervene(model, heads={1: [0, -1]}, by=by, tokens=tokens):
        changed = model(images)
    assert_same(changed, expected)
    assert_far(changed, model(images))


@torch.no_grad()
def test_a_silent_head_is_one_whose_output_matrix_is_zero(model: VisionTransformer) -> None:
    images, weights = make_images(), {k: v.clone() for k, v in model.state_dict().items()}
    with intervene(model, heads={1: [0, 2], -1: [3]}):
        silenced = model(images)
    width = model.config.dim // 4
    for block, head in ((1, 0), (1, 2), (2, 3)):
        weights[f"blocks.{block}.attn.proj.weight"][:, head * width : (head + 1) * width] = 0
    other = make_model(**CONFIGS["registers"])
    other.load_state_dict(weights)
    assert_same(silenced, other(images))


@torch.no_grad()
def test_a_block_without_update_is_no_block(model: VisionTransformer) -> None:
    images = make_images()
    tokens = model.embed(images)
    for block in (model.blocks[0], model.blocks[2]):
        tokens, _ = block(tokens)
    with intervene(model, blocks=[-2]):
        assert torch.equal(model(images), model.classify(model.norm(tokens)))
    with intervene(model, attention=[1], mlps=[1]):
        assert torch.equal(model(images), model.classify(model.norm(tokens)))


@torch.no_grad()
def test_what_is_named_twice_is_scaled_once(model: VisionTransformer) -> None:
    images = make_images()
    with intervene(model, mlps=[1], heads={0: [2]}, patches=[(0, 1)], tokens=[1], by=0.5):
        expected = model(images)
    with intervene(
        model, mlps=[1, -2], heads={0: [2, -2]}, patches=[(0, 1)] * 2, tokens=[1, -27], by=0.5
    ):
        assert torch.equal(model(images), expected)


@pytest.mark.parametrize("by", [0.0, 2.0, "mean"])
@torch.no_grad()
def test_patches_are_replaced_before_the_first_block(model: VisionTransformer, by: Any) -> None:
    """At row 2, col 4 and at row 3, col 1 of 4 rows and 6 cols, after 1 + 3 prefix tokens."""
    images = make_images()

    def new(value: Tensor) -> Tensor:
        return value[:, 4:].mean(1, keepdim=True) if by == "mean" else value * by

    numbers = [4 + 2 * 6 + 4, 4 + 3 * 6 + 1]
    expected = forward(model, images, at(("embedding", 0), new, tokens=numbers))
    with intervene(model, patches=[(2, 4), (3, 1)], by=by):
        changed = model(images)
    assert_same(changed, expected)
    assert_far(changed, model(images))


@torch.no_grad()
def test_patches_are_those_of_the_picture_not_of_the_config(model: VisionTransformer) -> None:
    images = torch.randn(1, 3, 48, 16, dtype=torch.float64)  # 6 rows x 2 cols
    tokens = model.embed(images)
    tokens[:, 4 + 5 * 2 + 1] = 0
    for block in model.blocks:
        tokens, _ = block(tokens)
    with intervene(model, patches=[(5, 1)]):
        assert_same(model(images), model.classify(model.norm(tokens)))


# ---- parts of other pictures ---------------------------------------------------------------------


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("part", STREAM)
@torch.no_grad()
def test_a_part_comes_from_another_picture(
    model: VisionTransformer, part: Any, mean: bool, tokens: Any
) -> None:
    images, others = make_images(0), make_images(1)
    theirs = keep_by_hand(model, others)[part, 1]
    theirs = theirs.mean(0, keepdim=True) if mean else theirs
    expected = forward(model, images, at((part, 1), lambda value: theirs, tokens=tokens))
    with record(model, part, blocks=[-2]) as recording:
        model(others)
    assert list(recording.values) == [(part, 1)]
    with intervene(model, **{part: [1]}, by=recording.mean() if mean else recording, tokens=tokens):
        assert_same(model(images), expected)


@torch.no_grad()
def test_a_head_and_a_patch_come_from_one_other_picture(model: VisionTransformer) -> None:
    images, other = make_images(0), make_images(1, batch=1)
    parts = keep_by_hand(model, other)

    def swap(part: str, block: int, value: Tensor) -> Tensor:
        value = value.clone()
        if part == "embedding":
            value[:, 4 + 6 + 2] = parts["embedding", 0][:, 4 + 6 + 2]
        if (part, block) == ("heads", 2):
            value[:, 3] = parts["heads", 2][:, 3]
        return value

    with record(model, "heads", "embedding") as recording:
        model(other)
    with intervene(model, heads={2: [3]}, patches=[(1, 2)], by=recording):
        assert_same(model(images), forward(model, images, swap))


@torch.no_grad()
def test_all_of_another_picture_is_the_other_picture(model: VisionTransformer) -> None:
    images, others = make_images(0), make_images(1)
    with record(model) as recording:
        logits = model(others)
    with intervene(model, outputs=[1], by=recording):
        assert torch.equal(model(images), logits)


# ---- attention weights ---------------------------------------------------------------------------


@torch.no_grad()
def test_weights_are_uniform(model: VisionTransformer) -> None:
    images = make_images()
    expected = forward(
        model, images, at(("weights", 1), lambda value: torch.full_like(value, 1 / 28))
    )
    with intervene(model, weights={-2: "uniform"}):
        assert_same(model(images), expected)
        logits, attentions = model(images, return_attention=True)
    assert_same(logits, expected)
    assert_same(attentions[1], torch.full_like(attentions[1], 1 / 28))
    assert attentions[0].amax(-1).mean() > 0.5


@pytest.mark.parametrize("kind", ["each", "one", "mean over heads", "hard"])
@torch.no_grad()
def test_weights_come_from_another_picture(model: VisionTransformer, kind: str) -> None:
    images, others = make_images(0), make_images(1)
    _, attentions = model(others, return_attention=[2])
    theirs = attentions[0]
    if kind == "one":
        theirs = theirs[1:]
    elif kind == "mean over heads":
        theirs = theirs.mean(1, keepdim=True)
    elif kind == "hard":  # zeros have no logarithm
        theirs = (theirs == theirs.amax(-1, keepdim=True)).double()
    expected = forward(model, images, at(("weights", 2), lambda value: theirs))
    rows = AttentionRows(blocks=[2], queries=[0, -3])
    with intervene(model, weights={2: theirs}):
        assert_same(model(images), expected)
        logits, whole = model(images, return_attention=[2])
        _, chosen = model(images, return_attention=rows)
    assert_same(logits, expected)
    assert_same(whole[0], theirs.expand_as(whole[0]))
    assert_same(chosen[0], theirs.expand_as(whole[0])[:, :, [0, -3]])


@torch.no_grad()
def test_own_weights_change_nothing(model: VisionTransformer) -> None:
    model, images = model.float(), make_images().float()
    logits, attentions = model(images, return_attention=True)
    with intervene(model, weights=dict(enumerate(attentions))):
        torch.testing.assert_close(model(images), logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_fused_kernel_stays(model: VisionTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images()
    with record(model) as recording:
        _, attentions = model(images, return_attention=[0])

    def explicit(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the fused kernel was left")

    monkeypatch.setattr(minivit.attention, "explicit_attention", explicit)
    with (
        intervene(model, heads={0: [0]}, attention=[1], mlps=[0], blocks=[1], outputs=[1]),
        intervene(model, weights={0: attentions[0], 1: "uniform"}),
        intervene(model, patches=[(0, 0)], heads={2: [1]}, by=recording),
        record(model),
    ):
        model(images)


# ---- several at once -----------------------------------------------------------------------------


@torch.no_grad()
def test_several_parts_are_replaced_in_the_order_of_the_pass(model: VisionTransformer) -> None:
    images = make_images()
    factors = {("heads", 1), ("attention", 1), ("mlps", 1), ("blocks", 1), ("outputs", 1)}

    def change(part: str, block: int, value: Tensor) -> Tensor:
        return value * 0.5 if (part, block) in factors else value

    expected = forward(model, images, change)
    everywhere = {1: range(4)}
    with intervene(
        model, outputs=[1], blocks=[1], mlps=[1], attention=[1], heads=everywhere, by=0.5
    ):
        assert_same(model(images), expected)


@torch.no_grad()
def test_the_inner_one_acts_on_what_the_outer_one_has_left(model: VisionTransformer) -> None:
    images = make_images()
    with record(model, "mlps") as recording:
        model(make_images(1))

    def outer_then_inner(part: str, block: int, value: Tensor) -> Tensor:
        return recording["mlps", 0] * 0.5 if (part, block) == ("mlps", 0) else value

    with intervene(model, mlps=[0], by=recording), intervene(model, mlps=[0], by=0.5):
        assert_same(model(images), forward(model, images, outer_then_inner))
    with (
        intervene(model, mlps=[0], by=0.5),
        intervene(model, mlps=[0], by=recording),
        record(model, "mlps") as kept,
    ):
        model(images)
    assert_same(kept["mlps", 0], recording["mlps", 0])
    with intervene(model, weights={0: torch.eye(28)[None, None].double()}):
        with intervene(model, weights={0: "uniform"}):
            _, attentions = model(images, return_attention=[0])
            assert_same(attentions[0], torch.full_like(attentions[0], 1 / 28))
        _, attentions = model(images, return_attention=[0])
        assert_same(attentions[0], torch.eye(28).double().expand_as(attentions[0]))


@torch.no_grad()
def test_tokens_that_are_not_chosen_keep_their_bits(model: VisionTransformer) -> None:
    model, images = model.float(), make_images().float()
    with record(model, "outputs") as whole:
        model(images)
    for part in ("blocks", "mlps", "outputs"):
        with intervene(model, **{part: [0]}, tokens=[3], by=0.7), record(model, "outputs") as kept:
            model(images)
        same = (whole["outputs", 0] == kept["outputs", 0]).all(-1)
        assert not same[:, 3].any() and same[:, :3].all() and same[:, 4:].all()


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_gradients_are_those_of_the_pass_by_hand(
    model: VisionTransformer, checkpointing: bool, inside: bool
) -> None:
    """In training mode too, where blocks may be computed again, and after the context is left."""
    model.train().gradient_checkpointing = checkpointing
    images = make_images().requires_grad_()
    changed = {("heads", 1), ("mlps", 0), ("blocks", 2)}

    def change(part: str, block: int, value: Tensor) -> Tensor:
        if (part, block) == ("weights", 0):
            return torch.full_like(value, 1 / 28)
        return value * 0.5 if (part, block) in changed else value

    (expected,) = torch.autograd.grad(forward(model, images, change)[:, 3].sum(), images)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            intervene(model, heads={1: range(4)}, mlps=[0], blocks=[2], by=0.5,
                      weights={0: "uniform"})
        )  # fmt: skip
        logits = model(images)[:, 3].sum()
        if not inside:
            stack.close()
        (gradient,) = torch.autograd.grad(logits, images)
    assert_same(gradient, expected)
    assert model.gradient_checkpointing is checkpointing


@pytest.mark.parametrize("part", ["heads", "attention", "mlps", "embedding"])
def test_blocks_of_another_pass_are_not_computed_again_within(
    model: VisionTransformer, part: Any
) -> None:
    """What happens to a block's output is no part of what is computed again."""
    model.train().gradient_checkpointing = True
    loss = model(make_images()).sum()
    with (
        record(model, part),
        pytest.raises(RuntimeError, match="computes a block again while an intervention"),
    ):
        loss.backward()
    loss = model(make_images()).sum()
    with (
        intervene(model, weights={0: "uniform"}),
        pytest.raises(RuntimeError, match="computes a block again while an intervention"),
    ):
        loss.backward()


# ---- nothing is left behind ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_what_it_was(training: bool, error: bool, mode: Any) -> None:
    options: dict[str, Any] = {"dropout": 0.0, "drop_path": 0.2}
    model, images = make_model(**options).train(training), make_images()
    model.blocks[1].eval()
    model.gradient_checkpointing = True
    model.blocks[2].mlp.fc1.weight.requires_grad_(False)
    model.blocks[0].attn.proj.register_forward_pre_hook(lambda module, arguments: None)
    with untouched(model, images), contextlib.suppress(KeyError):
        generator = torch.random.get_rng_state()
        with mode(), record(model) as recording:
            model(images)
            with (
                intervene(model, heads={0: [1]}, mlps=[1], weights={1: "uniform"}),
                intervene(model, patches=[(1, 1)], outputs=[1], tokens=[2], by=recording),
            ):
                model(images)
                torch.random.set_rng_state(generator)  # drop_path has drawn
                if error:
                    raise KeyError


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"blocks": [3]}, "block 3: choose from -3 to 2"),
        ({"heads": {0: [1], -4: [1]}}, "block -4: choose from -3 to 2"),
        ({"heads": {1: [0], -2: [1]}}, "blocks 1, -2: one of them is named twice"),
        ({"heads": {1: [0, 4]}}, "head 4: choose from -4 to 3"),
        ({"mlps": [0], "by": "median"}, "by is 'median': expected a factor, 'mean' or a Recording"),
        ({"mlps": [0], "by": float("nan")}, "by is nan"),
        ({"weights": {0: "even"}}, "weights of block 0 are 'even': give 'uniform' or a tensor"),
        ({"weights": {0: torch.ones(1, 3, 28, 28) / 28}}, "are (1, 3, 28, 28): expected (B or 1, "),
        ({"weights": {0: torch.ones(1, 4, 2, 28) / 28}}, "are (1, 4, 2, 28): expected (B or 1, "),
        ({"weights": {0: torch.ones(1, 4, 28, 28)}}, "found sums from 28 to 28: divide the rows"),
        ({"weights": {0: torch.eye(28)[None, None] * 2 - 1 / 28}}, "expected none below 0"),
        # at the call of the model
        ({"mlps": [0], "tokens": [28]}, "token 28: choose from -28 to 27"),
        ({"patches": [(0, 6)]}, "patch (0, 6): the patches are a grid of 4 rows x 6 cols"),
        ({"patches": [(-1, 0)]}, "patch (-1, 0): the patches are a grid of 4 rows x 6 cols"),
        ({"mlps": [0], "by": Recording()}, "mlps of block 0 are not in this recording, which hold"),
        (
            {"mlps": [0], "by": Recording({("mlps", 0): torch.ones(3, 28, 32)})},
            "were recorded as (3, 28, 32) and here they are (2, 28, 32): record pictures of the",
        ),
        ({"weights": {0: torch.eye(9)[None, None]}}, "for 2 pictures of 28 tokens: give those of"),
        ({"weights": {0: torch.eye(28).expand(3, 1, 28, 28)}}, "are (3, 1, 28, 28) for 2 pictures"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_leaves_nothing(
    model: VisionTransformer, named: dict[str, Any], message: str
) -> None:
    images = make_images()
    with untouched(model, images):
        with (
            pytest.raises(ValueError) as caught,
            intervene(model, outputs=[0], by=0.5),
            intervene(model, **named),
        ):
            model(images)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_not_rounded_in_silence(model: VisionTransformer) -> None:
    model, images = model.bfloat16(), make_images().bfloat16()
    with torch.no_grad(), intervene(model, weights={0: "uniform"}):
        _, attentions = model(images, return_attention=[0])
    torch.testing.assert_close(attentions[0], torch.full_like(attentions[0], 1 / 28))
    with (
        pytest.raises(ValueError, match=r"rounded to torch\.bfloat16: use model\.float\(\)"),
        intervene(model, weights={0: torch.eye(28)[None, None]}),
    ):
        model(images)


def refused(context: contextlib.AbstractContextManager[object]) -> str:
    """What is said when a context is not entered."""
    with pytest.raises(ValueError) as caught, context:
        pass
    return str(caught.value)


def test_models_that_call_no_hooks_are_refused(model: VisionTransformer) -> None:
    line = refused(intervene(torch.nn.Linear(2, 2)))  # type: ignore[arg-type]
    assert line.startswith("parts of a Linear cannot be reached: give a VisionTransformer")
    line = refused(record(torch.compile(model)))  # type: ignore[arg-type]
    assert line.startswith("parts of a OptimizedModule cannot be reached")
    model.blocks[1].compile()
    assert refused(intervene(model)).startswith("a compiled model does not call hooks")


def test_a_recording_says_what_it_does_not_hold(model: VisionTransformer) -> None:
    line = refused(record(model, "mlp"))  # type: ignore[arg-type]
    assert line.startswith("no part is called 'mlp': choose from embedding, heads")
    with torch.no_grad(), record(model, "mlps", blocks=[0, -1]) as recording:
        model(make_images())
    with pytest.raises(ValueError, match=r"mlps of block 1 .* which holds mlps 0, mlps 2: record"):
        recording["mlps", 1]
