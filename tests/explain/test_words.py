"""Maps of a captioner's words against the paper's matrices in numpy, word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.captioner import Captioner
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.explain.words import cross_attention, word_relevance
from minivit.tokenizer import WordLevel
from minivit.word_maps import relative_attention

ROWS, COLS, DEPTH = 4, 6, 2
WORDS = ("a", "blue", "circle", "red", "square")
VIT = ViTConfig.from_name(
    "debug_patch8_32", image_size=(32, 48), num_classes=0, num_register_tokens=2
)


def make_captioner(**options: Any) -> Captioner:
    """One in float64 and eval mode, with sharpened attention."""
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "backbone": VIT,
        "vocabulary_size": len(WORDS) + 4,
        "max_length": 8,
        "dim": 16,
        "num_heads": 2,
        "hidden_dim": 24,
        "encoder_depth": 2,
        "decoder_depth": DEPTH,
        "head_dim": 12,
    }
    captioner = Captioner(CaptionerConfig(**(values | options)), WordLevel(WORDS)).double().eval()
    with torch.no_grad():
        for name, weight in captioner.named_parameters():
            if name.endswith("qkv.weight"):
                weight[: 2 * weight.shape[1]].mul_(3)
            elif name.startswith("head.2"):
                weight.normal_()
    return captioner


def make_images() -> Tensor:
    return torch.randn(
        2, 3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def make_tokens(captioner: Captioner) -> Tensor:
    """Two sentences, one of them padded."""
    tokenizer = captioner.tokenizer
    longer, shorter = tokenizer.encode("a red circle"), tokenizer.encode("a square")
    ends = [tokenizer.end_id], [tokenizer.end_id, tokenizer.pad_id]
    return torch.tensor(
        [[tokenizer.start_id, *longer, *ends[0]], [tokenizer.start_id, *shorter, *ends[1]]]
    )


def share(flow: np.ndarray) -> np.ndarray:
    """Equations 8 and 9, row by row."""
    result = np.eye(len(flow))
    for number, row in enumerate(flow - np.eye(len(flow))):
        if row.sum() > 0:
            result[number] += row / row.sum()
    return result


def by_hand(captioner: Captioner, images: Tensor, tokens: Tensor, word: int) -> np.ndarray:
    """(B, rows, cols) of one word."""
    logits, weights = captioner(images, tokens, return_attention=True)
    assert all(weight.requires_grad for weight in captioner.parameters())
    maps = []
    for picture in range(len(images)):
        score = logits[picture, word, tokens[picture, word + 1]]

        def means(kind: list[Tensor], score: Tensor = score, picture: int = picture) -> list[Any]:
            gradients = torch.autograd.grad(score, kind, retain_graph=True)
            return [
                np.maximum((w * g)[picture].detach().numpy(), 0).mean(0)
                for w, g in zip(kind, gradients, strict=True)
            ]

        cells = np.eye(3 + ROWS * COLS)
        of_encoder = means(weights.encoder)
        for mean in of_encoder[:2]:  # the ViT's own two blocks
            cells = cells + mean @ cells
        cells = cells[3:, 3:]
        for mean in of_encoder[2:]:
            cells = cells + mean @ cells
        words, flow = np.eye(tokens.shape[1]), np.zeros((tokens.shape[1], ROWS * COLS))
        for own, cross in zip(means(weights.decoder), means(weights.cross), strict=True):
            words, flow = words + own @ words, flow + own @ flow
            flow = flow + share(words).T @ cross @ share(cells)
        maps.append(flow[word].reshape(ROWS, COLS))
    return np.stack(maps)


def test_relevance_is_the_papers_for_each_word() -> None:
    captioner, images = make_captioner(), make_images()
    tokens = make_tokens(captioner)
    maps = word_relevance(captioner, images, tokens)
    assert maps.shape == (2, tokens.shape[1] - 1, ROWS, COLS) and not maps.requires_grad
    for word in range(maps.shape[1]):
        expected = by_hand(captioner, images.clone(), tokens, word)
        np.testing.assert_allclose(maps[:, word].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert maps.amax(dim=(2, 3)).min() > 0
    some = word_relevance(captioner, images, tokens, words=[-1, 0])
    torch.testing.assert_close(some, maps[:, [-1, 0]])


def test_a_word_knows_nothing_of_those_after_it() -> None:
    captioner, images = make_captioner(), make_images()
    tokens = make_tokens(captioner)
    other = tokens.clone()
    other[:, 3:] = 5
    first, second = (
        word_relevance(captioner, images, each, words=[0, 1]) for each in (tokens, other)
    )
    torch.testing.assert_close(first, second)


def test_rows_through_which_nothing_passes_make_no_nan() -> None:
    """No gradient reaches any weight: the last layer is zero, so are all maps."""
    captioner, images = make_captioner(), make_images()
    with torch.no_grad():
        captioner.head[2].weight.zero_()
    maps = word_relevance(captioner, images, make_tokens(captioner))
    assert torch.equal(maps, torch.zeros_like(maps))


@pytest.mark.parametrize("encoder_depth", [0, 1])
def test_cells_of_a_resnet_have_maps_and_padding_has_none(encoder_depth: int) -> None:
    captioner = make_captioner(backbone=ResNetConfig(depth=50), encoder_depth=encoder_depth)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    mask = torch.ones(2, 64, 96, dtype=torch.bool)
    mask[1, :, 32:] = False
    tokens = make_tokens(captioner)
    for maps in (
        word_relevance(captioner, images, tokens, image_mask=mask, words=[1]),
        cross_attention(captioner, images, tokens, image_mask=mask),
        cross_attention(captioner, images, tokens, image_mask=mask, relative=True),
    ):
        assert maps.shape[2:] == (2, 3) and maps.isfinite().all()
        assert maps[0].max() > 0 and maps[1, :, :, 0].max() > 0
        assert torch.equal(maps[1, :, :, 1:], torch.zeros_like(maps[1, :, :, 1:]))


def test_cross_attention_is_that_of_the_step_that_says_the_word() -> None:
    captioner, images = make_captioner(), make_images()
    tokens = make_tokens(captioner)
    with torch.no_grad():
        _, weights = captioner(images, tokens, return_attention=True)
    last = weights.cross[-1][:, :, :-1].unflatten(-1, (ROWS, COLS))
    torch.testing.assert_close(cross_attention(captioner, images, tokens), last.mean(dim=1))
    one = cross_attention(captioner, images, tokens, block=0, head=1)
    torch.testing.assert_close(one.flatten(2), weights.cross[0][:, 1, :-1])
    relative = cross_attention(captioner, images, tokens, relative=True)
    raw = last.mean(dim=1)
    torch.testing.assert_close(relative[0], relative_attention(raw[0]))
    torch.testing.assert_close(relative[1, :3], relative_attention(raw[1, :3]))
    assert torch.equal(relative[1, 3], torch.zeros(ROWS, COLS).double())


@pytest.mark.parametrize("function", [cross_attention, word_relevance])
def test_the_captioner_is_left_as_it_was(function: Callable[..., Tensor]) -> None:
    captioner, images = make_captioner(), make_images()
    tokens = make_tokens(captioner)
    for number, weight in enumerate(captioner.parameters()):
        weight.grad = torch.randn_like(weight)
        weight.requires_grad_(number % 3 > 0)
    for number, module in enumerate(captioner.modules()):
        module.training = number % 2 == 0

    def state() -> Any:
        weights = dict(captioner.named_parameters())
        return (
            {name: (w.detach().numpy().tobytes(), w.requires_grad) for name, w in weights.items()},
            {name: w.grad.numpy().tobytes() for name, w in weights.items() if w.grad is not None},
            [(m.training, len(m._forward_hooks), sorted(vars(m))) for m in captioner.modules()],
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
        )

    before = state()
    first = function(captioner, images, tokens)
    assert state() == before

    def fail(*_: object) -> None:
        raise RuntimeError("a hook of the user's failed")

    handle = captioner.decoder[-1].mlp.register_forward_hook(fail)
    before = state()
    with pytest.raises(RuntimeError, match="a hook of the user's failed"):
        function(captioner, images, tokens)
    assert state() == before
    handle.remove()
    assert torch.equal(function(captioner.eval(), images, tokens), first)  # dropout was off


def test_what_is_not_there_is_refused() -> None:
    captioner, images = make_captioner(), make_images()
    tokens = make_tokens(captioner)
    with pytest.raises(IndexError, match="word 4: choose from -4 to 3"):
        word_relevance(captioner, images, tokens, words=[4])
    with pytest.raises(IndexError, match="block 2: this captioner has 2 decoder blocks"):
        cross_attention(captioner, images, tokens, block=2)
    for function in (word_relevance, cross_attention):
        with pytest.raises(ValueError, match=r"tokens are \(2, 1\), expected \(B, T\)"):
            function(captioner, images, tokens[:, :1])
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode records none"):
        word_relevance(captioner, images, tokens)


@pytest.mark.parametrize("backbone", [VIT, ResNetConfig(depth=50)])
def test_pictures_of_a_callers_graph_are_taken_as_they_are(backbone: Any) -> None:
    captioner, leaf = make_captioner(backbone=backbone), make_images().requires_grad_()
    tokens = make_tokens(captioner)
    expected = word_relevance(captioner, make_images(), tokens, words=[0])
    maps = word_relevance(captioner, 1 * leaf, tokens, words=[0])
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad and leaf.grad is None
