"""Ranking of a captioner's parts: against weights that are zeroed by hand, word by word."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from minivit import ViTConfig
from minivit.captioner import Captioner
from minivit.config import CaptionerConfig, ResNetConfig
from minivit.explain import rank_word_parts
from minivit.tokenizer import WordLevel
from tests.explain.untouched import state_of

WORDS = ["a", "red", "circle", "above", "the", "blue", "star"]
CELLS = {"ViT": (2, 3), "encoder": (1, 4), "decoder words": (2, 4), "decoder cells": (2, 4)}


def make_captioner(backbone: ViTConfig | ResNetConfig | None = None) -> Captioner:
    """Random and sharp; a ViT of 2 blocks of 3 heads, then 1 and 2 blocks of 4 heads."""
    torch.manual_seed(3)
    config = CaptionerConfig(
        backbone=backbone
        or ViTConfig.from_name("debug_patch8_32", num_classes=0, dim=24, num_heads=3),
        vocabulary_size=4 + len(WORDS),
        max_length=8,
        dim=32,
        num_heads=4,
        hidden_dim=48,
        encoder_depth=1,
        decoder_depth=2,
        head_dim=32,
    )
    captioner = Captioner(config, WordLevel(WORDS)).double().eval()
    with torch.no_grad():
        for name, weight in captioner.named_parameters():
            if not name.startswith("backbone") or backbone is None:
                weight.add_(0.2 * torch.randn_like(weight))
    return captioner


def make_inputs() -> tuple[Tensor, Tensor]:
    """A picture of 3:2, and the start token with five words, one of them twice."""
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)).double()
    tokenizer = WordLevel(WORDS)
    ids = tokenizer.encode("a red circle above a")
    return images, torch.tensor([[tokenizer.start_id, *ids]])


def log_probabilities(captioner: Captioner, images: Tensor, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits = captioner(images, tokens)[0]
    number = torch.arange(tokens.shape[1] - 1)
    return logits[number, tokens[0, 1:]] - logits[number].exp().sum(1).log()


def block_of(captioner: Captioner, where: str, number: int) -> Any:
    backbone: Any = captioner.backbone
    groups = {"ViT": backbone.blocks, "encoder": captioner.encoder}
    return groups.get(where, captioner.decoder)[number]


def zero_head(attention: Any, head: int) -> None:
    width = attention.proj.weight.shape[1] // attention.num_heads
    attention.proj.weight.data[:, head * width : (head + 1) * width] = 0


@pytest.mark.parametrize("where", CELLS)
def test_a_head_is_ranked_as_without_its_columns_of_the_projection(where: str) -> None:
    captioner, (images, tokens) = make_captioner(), make_inputs()
    ranking = rank_word_parts(captioner, images, tokens)
    before = log_probabilities(captioner, images, tokens)
    torch.testing.assert_close(ranking.log_probabilities, before, atol=1e-10, rtol=0)
    blocks = {each.block: each for each in ranking.blocks if each.where == where}
    depth, num_heads = CELLS[where]
    assert list(blocks) == list(range(depth))
    for number, ranked in blocks.items():
        assert ranked.heads.shape == (num_heads, 5)
        for head in range(num_heads):
            other = copy.deepcopy(captioner)
            block = block_of(other, where, number)
            zero_head(block.cross_attn if where == "decoder cells" else block.attn, head)
            change = log_probabilities(other, images, tokens) - before
            torch.testing.assert_close(ranked.heads[head], change, atol=1e-10, rtol=0)
        assert ranked.heads.abs().max() > 1e-3
        if where == "decoder words":
            assert ranked.mlp is None
            continue
        other = copy.deepcopy(captioner)
        fc2 = block_of(other, where, number).mlp.fc2
        for weight in fc2.parameters():
            weight.data.zero_()
        change = log_probabilities(other, images, tokens) - before
        assert ranked.mlp is not None and change.abs().max() > 1e-3
        torch.testing.assert_close(ranked.mlp, change, atol=1e-10, rtol=0)


class Averaging(nn.Module):
    """A module whose input, or a part of its channels, or whose output, is a mean over tokens."""

    def __init__(self, module: nn.Module, channels: slice | None) -> None:
        super().__init__()
        self.module, self.channels = module, channels

    def forward(self, x: Tensor) -> Tensor:
        if self.channels is None:
            output: Tensor = self.module(x)
            return output.mean(1, keepdim=True).repeat(1, output.shape[1], 1)
        x = x.clone()
        x[..., self.channels] = x[..., self.channels].mean(1, keepdim=True)
        changed: Tensor = self.module(x)
        return changed


def test_the_mean_takes_a_parts_place() -> None:
    captioner, (images, tokens) = make_captioner(), make_inputs()
    ranking = rank_word_parts(captioner, images, tokens, replace="mean")
    before = log_probabilities(captioner, images, tokens)
    (ranked,) = [each for each in ranking.blocks if (each.where, each.block) == ("encoder", 0)]
    with_head, with_mlp = copy.deepcopy(captioner), copy.deepcopy(captioner)
    attention = block_of(with_head, "encoder", 0).attn
    linear = nn.Linear(32, 32).double()  # the layer itself would be left out by a faster way
    linear.load_state_dict(attention.proj.state_dict())
    attention.proj.forward = Averaging(linear, slice(16, 24)).forward
    block = block_of(with_mlp, "encoder", 0)
    block.mlp = Averaging(block.mlp, None)
    for actual, other in ((ranked.heads[2], with_head), (ranked.mlp, with_mlp)):
        change = log_probabilities(other, images, tokens) - before
        assert actual is not None and change.abs().max() > 1e-3
        torch.testing.assert_close(actual, change, atol=1e-10, rtol=0)


def test_the_words_are_those_of_the_caption() -> None:
    """Teacher forcing gives each word the log-probability that the search gave it."""
    captioner = make_captioner().float()
    picture = Image.effect_noise((48, 32), 60).convert("RGB")
    (caption,) = captioner.caption([picture])
    assert len(set(caption.token_ids)) > 1
    ends = [captioner.tokenizer.end_id] if caption.end_log_prob is not None else []
    tokens = torch.tensor([[captioner.tokenizer.start_id, *caption.token_ids, *ends]])
    ranking = rank_word_parts(captioner, captioner.preprocess(picture)[None], tokens)
    read = ranking.log_probabilities[: len(caption.token_ids)].tolist()
    assert read == pytest.approx(caption.log_probs, abs=1e-4)


@pytest.mark.parametrize("parts", ["heads", "mlps"])
def test_parts_that_are_not_asked_for_are_left_out(parts: Any) -> None:
    captioner, (images, tokens) = make_captioner(), make_inputs()
    whole = rank_word_parts(captioner, images, tokens)
    ranking = rank_word_parts(captioner, images, tokens, parts=parts)
    for ranked, all_of_it in zip(ranking.blocks, whole.blocks, strict=True):
        if parts == "heads":
            assert ranked.mlp is None and torch.equal(ranked.heads, all_of_it.heads)
        else:
            assert ranked.heads.shape == (0, 5) and (ranked.mlp is None) == (all_of_it.mlp is None)


def test_a_resnet_has_no_heads_and_the_steps_are_counted() -> None:
    steps: list[int] = []

    def bar(title: str, total: int) -> Callable[[int], object]:
        assert (title, total) == ("ablate", 5)
        return steps.append

    captioner = make_captioner(ResNetConfig(depth=50))
    images, tokens = make_inputs()
    ranking = rank_word_parts(captioner, images, tokens, parts="mlps", bar=bar)
    assert [each.where for each in ranking.blocks] == [
        "encoder", "decoder words", "decoder cells", "decoder words", "decoder cells",
    ]  # fmt: skip
    assert steps == [1] * 5


def test_what_cannot_be_ranked_is_refused() -> None:
    captioner, (images, tokens) = make_captioner(), make_inputs()
    for given in ((images.repeat(2, 1, 1, 1), tokens), (images, tokens[:, :1])):
        with pytest.raises(ValueError, match="the start token and a word at least"):
            rank_word_parts(captioner, *given)
    with pytest.raises(ValueError, match="parts is 'head': choose from heads, mlps, all"):
        rank_word_parts(captioner, images, tokens, parts="head")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="replace is 'noise': choose from zero, mean"):
        rank_word_parts(captioner, images, tokens, replace="noise")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("error", [False, True])
def test_nothing_is_left_behind(mode: Any, error: bool) -> None:
    captioner, (images, tokens) = make_captioner().train(), make_inputs()
    model: Any = captioner
    before = state_of(model)

    def bar(title: str, total: int) -> Callable[[int], object]:
        def advance(count: int) -> None:
            if error:
                raise KeyError

        return advance

    with mode():
        state = state_of(model)
        if error:
            with pytest.raises(KeyError):
                rank_word_parts(captioner, images, tokens, bar=bar)
        else:
            ranking = rank_word_parts(captioner, images, tokens, bar=bar)
            assert not ranking.blocks[0].heads.requires_grad
        assert state_of(model) == state
    assert state_of(model) == before
