"""Lesson 8: its checks tell wrong answers apart, and what it says of the library holds."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.generation import generate
from minivit.word_maps import decoder_input
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_beam_step,
    check_cached_step,
    check_causal_mask,
    check_picture_gain,
    check_sentence_loss,
)
from tutorials.checks.lesson_08 import picture_gain

Cache = tuple[Tensor, Tensor] | None


def _ones(n: int, m: int) -> Tensor:
    return torch.ones(n, m, dtype=torch.bool)


def _by_comparison(n: int, m: int) -> Tensor:
    return torch.arange(m)[None] <= torch.arange(m - n, m)[:, None]


def test_the_mask() -> None:
    assert_told_apart(
        check_causal_mask,
        right=[solution("08", "8.1")["my_causal_mask"], _by_comparison],
        wrong={
            "begins at the upper left": lambda n, m: _ones(n, m).tril(),
            "no word sees itself": lambda n, m: _ones(n, m).tril(m - n - 1),
            "True and False are swapped": lambda n, m: ~_by_comparison(n, m),
            "rows and columns are swapped": lambda n, m: _ones(n, m).triu(m - n),
            "nothing is hidden": _ones,
            "torch.float32": lambda n, m: torch.ones(n, m).tril(m - n),
            "the shape is": lambda n, m: _by_comparison(n, m)[None],
            "nothing comes back": lambda n, m: None,
        },
    )


def _by_words(logits: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
    log_p = logits.log_softmax(dim=-1)[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
    real = tokens[:, 1:] != pad_id
    return -log_p[real].mean()


def _per_sentence(logits: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
    return torch.stack(
        [_by_words(logits[i : i + 1], tokens[i : i + 1], pad_id) for i in range(len(tokens))]
    ).mean()


def test_the_loss() -> None:
    def entropy(logits: Tensor, targets: Tensor, pad_id: int = -100, **options: str) -> Tensor:
        return F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=pad_id, **options
        )

    assert_told_apart(
        check_sentence_loss,
        right=[solution("08", "8.2")["sentence_loss"], _by_words],
        wrong={
            "that it has just read": entropy,
            "the wrong way": lambda z, t, p: entropy(z[:, 1:], t[:, :-1], p),
            "padding is counted": lambda z, t, p: entropy(z[:, :-1], t[:, 1:]),
            "divided by all positions": lambda z, t, p: (
                entropy(z[:, :-1], t[:, 1:], p, reduction="sum") / t[:, 1:].numel()
            ),
            "added and not divided": lambda z, t, p: entropy(
                z[:, :-1], t[:, 1:], p, reduction="sum"
            ),
            "each sentence has the same weight": _per_sentence,
            "softmax is taken twice": lambda z, t, p: entropy(
                z.softmax(dim=-1)[:, :-1], t[:, 1:], p
            ),
            "the sign is turned": lambda z, t, p: -_by_words(z, t, p),
            "no gradient reaches the logits": lambda z, t, p: _by_words(z, t, p).detach(),
            "() for one number": lambda z, t, p: F.cross_entropy(
                z[:, :-1].transpose(1, 2), t[:, 1:], ignore_index=p, reduction="none"
            ),
            "nothing comes back": lambda z, t, p: None,
        },
    )


def _sorted_step(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    totals = scores[:, None] + log_probs
    order = sorted(
        ((float(totals[k, v]), k, v) for k in range(len(scores)) for v in range(totals.shape[1])),
        reverse=True,
    )[: len(scores)]
    best, beams, words = zip(*order, strict=True)
    return torch.tensor(best), torch.tensor(beams), torch.tensor(words)


def test_the_step_of_a_search() -> None:
    def alone(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best, words = log_probs.max(dim=1)
        totals, order = (scores + best).sort(descending=True)
        return totals, order, words[order]

    def without_scores(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best, place = log_probs.flatten().topk(3)
        return best, place // 5, place % 5

    def other(change: str) -> object:
        def step(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            totals, beams, words = _sorted_step(scores, log_probs)
            if change == "swapped":
                return totals, words, beams
            if change == "flat":
                return totals, beams, beams * 5 + words
            return totals, beams * 0, words

        return step

    def in_place(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_probs += scores[:, None]
        best, place = log_probs.flatten().topk(3)
        return best, place // 5, place % 5

    assert_told_apart(
        check_beam_step,
        right=[solution("08", "8.3")["beam_step"], _sorted_step],
        wrong={
            "went on once": alone,
            "the scores of the beams so far are forgotten": without_scores,
            "quotient and remainder are swapped": other("swapped"),
            "places in the flat list": other("flat"),
            "the beams are not": other("zeros"),
            "changed it": in_place,
            "three tensors": lambda s, p: s,
            "totals (K,)": lambda s, p: (s[:2], s, s),
            "nothing comes back": lambda s, p: None,
        },
    )


def _append(key: Tensor, value: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
    if cache is None:
        return key, value
    return torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)


def test_attention_with_a_cache() -> None:
    attend = F.scaled_dot_product_attention

    def fused(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        k, v = _append(k, v, cache)
        return attend(q, k, v), (k, v)

    def at_upper_left(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        k, v = _append(k, v, cache)
        return attend(q, k, v, is_causal=True), (k, v)

    def too_late(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        output = torch.zeros_like(q) if cache is None else attend(q, *cache)
        return output, _append(k, v, cache)

    def itself(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        return attend(q, k, v), _append(k, v, cache)

    def swapped(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        k, v = _append(k, v, cache)
        return attend(q, v, k), (k, v)

    def unscaled(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        k, v = _append(k, v, cache)
        return attend(q, k, v, scale=1.0), (k, v)

    assert_told_apart(
        check_cached_step,
        right=[solution("08", "8.4")["cached_step"], fused],
        wrong={
            "first word's value": at_upper_left,
            "does not see itself": too_late,
            "sees itself alone": itself,
            "keys and values are swapped": swapped,
            "not divided by √d": unscaled,
            "the cache holds 1 keys": lambda q, k, v, c: (attend(q, k, v), (k, v)),
            "a pair is expected": lambda q, k, v, c: attend(q, k, v),
            "has other numbers": changed_in_place(fused),
            "nothing comes back": lambda q, k, v, c: None,
        },
    )


def test_the_gain_of_the_picture() -> None:
    table, late = picture_gain(), picture_gain(read=True)
    right = {kind: own - other for kind, (own, other, _) in table.items()}
    assert right["size"] < right["shape"] < right["colour"]  # as the solution says
    assert_told_apart(
        check_picture_gain,
        right=[
            solution("08", "8.5")["gain"],
            {kind: torch.tensor(gain) for kind, gain in right.items()},
        ],
        wrong={
            "the sign is turned": {kind: -gain for kind, gain in right.items()},
            "the loss with the other picture": {k: -other for k, (_, other, _) in table.items()},
            "the loss with the own picture": {k: -own for k, (own, _, _) in table.items()},
            "sum over words": {k: right[k] * count for k, (_, _, count) in table.items()},
            "the rows that read the word": {k: own - other for k, (own, other, _) in late.items()},
            "bits": {kind: gain / math.log(2) for kind, gain in right.items()},
            "no number for": {"size": 1.0},
            "is no number": dict.fromkeys(right, "much"),
            "a dictionary": 3.0,
            "another number": dict.fromkeys(right, 1.0),
        },
    )


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_sentence_has_the_probability_that_its_search_says(beam_size: int) -> None:
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, minivit.Captioner)
    end = captioner.tokenizer.end_id
    pictures = [make_scene(TEST_SEED, index).image for index in range(4)]
    with torch.inference_mode():
        memory = captioner.encode_photos(pictures)
        for index, (best, *_) in enumerate(
            generate(captioner.next_words(memory), beam_size=beam_size)
        ):
            tokens = decoder_input([[*best.token_ids, end]], captioner.tokenizer)
            alone = memory._replace(tokens=memory.tokens[index : index + 1])
            log_p = captioner.decode(tokens[:, :-1], alone)[0].log_softmax(dim=-1)
            again = log_p.gather(2, tokens[:, 1:, None])[0, :, 0]
            torch.testing.assert_close(again, torch.tensor(best.log_probs), atol=1e-4, rtol=1e-4)
