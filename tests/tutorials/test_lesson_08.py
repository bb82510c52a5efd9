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
from minivit.training.caption.grounding import KINDS
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
            "shifted to the wrong side: M - N, not N - M": lambda n, m: _ones(n, m).tril(n - m),
            "0 and -inf, which is added": lambda n, m: torch.zeros(n, m).masked_fill(
                ~_by_comparison(n, m), -math.inf
            ),
            "0 and 1 hide nothing": lambda n, m: torch.ones(n, m).tril(m - n),
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
            "padding is looked for in the words that are read": lambda z, t, p: F.cross_entropy(
                z[:, :-1].transpose(1, 2), t[:, 1:], reduction="none"
            )[t[:, :-1] != p].mean(),
            "nll_loss wants log-probabilities": lambda z, t, p: F.nll_loss(
                z[:, :-1].flatten(0, 1), t[:, 1:].flatten(), ignore_index=p
            ),
            "the mean of -p": lambda z, t, p: F.nll_loss(
                z[:, :-1].softmax(dim=-1).flatten(0, 1), t[:, 1:].flatten(), ignore_index=p
            ),
            "the mean of the probabilities": lambda z, t, p: (
                -F.nll_loss(
                    z[:, :-1].softmax(dim=-1).flatten(0, 1), t[:, 1:].flatten(), ignore_index=p
                )
            ),
            "dimension 1 for the classes": lambda z, t, p: F.cross_entropy(
                z[:, :-1], t[:, 1:], ignore_index=p
            ),
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
            if change == "late":
                return words, beams, totals
            if change == "ascending":
                return totals.flip(0), beams.flip(0), words.flip(0)
            if change == "fraction":
                return totals, (beams * 5 + words) / 5, words
            if change == "both the quotient":
                return totals, beams, beams
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
            "beams and words are swapped": other("swapped"),
            "quotient and remainder are swapped": other("both the quotient"),
            "your totals do not come first": other("late"),
            "the worst of them comes first": other("ascending"),
            "with //, not with /": other("fraction"),
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

    def only_old(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        return (v if cache is None else attend(q, *cache)), _append(k, v, cache)

    def prepended(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        if cache is not None:
            k, v = torch.cat([k, cache[0]], dim=2), torch.cat([v, cache[1]], dim=2)
        return attend(q, k, v), (k, v)

    def by_heads(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        k, v = _append(k, v, cache)
        return attend(q, k, v, scale=(q.shape[1] * q.shape[3]) ** -0.5), (k, v)

    def over(dim: int) -> object:
        def step(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
            k, v = _append(k, v, cache)
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            return scores.softmax(dim=dim) @ v, (k, v)

        return step

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
            "the new word does not see itself: append": too_late,
            "from the second word on": only_old,
            "begin with the newest word": prepended,
            "holds the values where the keys": lambda q, k, v, c: (
                attend(q, k, v),
                _append(k, v, c)[::-1],
            ),
            "the output comes first": lambda q, k, v, c: fused(q, k, v, c)[::-1],
            "keys and values, and this is None": lambda q, k, v, c: (attend(q, k, v), None),
            "√(H·d)": by_heads,
            "over the one query": over(-2),
            "over the heads": over(1),
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
    table = picture_gain()
    right = {kind: own - other for kind, (own, other, _) in table.items()}
    # As the solution says.
    assert right == pytest.approx({"size": 1.3, "shape": 9.1, "colour": 15.2}, abs=0.05)

    def gains(mistake: str) -> dict[str, float]:
        return {kind: own - other for kind, (own, other, _) in picture_gain(mistake).items()}

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
            "the rows that read the word": gains("reads"),
            "come after one of this kind": gains("after"),
            "raw logits": gains("logits"),
            "differences of probabilities": gains("probabilities"),
            "a mean over scenes": gains("scenes"),
            "bits": {kind: gain / math.log(2) for kind, gain in right.items()},
            "no number for": {"size": 1.0},
            "is no number": dict.fromkeys(right, "much"),
            "a dictionary": 3.0,
            "another number": dict.fromkeys(right, 1.0),
        },
    )


def test_the_other_picture_has_the_true_size_more_often_than_the_shape_and_the_colour() -> None:
    scenes = [make_scene(TEST_SEED, index) for index in range(40)]
    shares = {}
    for kind, words in KINDS.items():
        fits = [
            word in {getattr(thing, kind) for thing in other.objects}
            for scene, other in zip(scenes, [*scenes[1:], scenes[0]], strict=True)
            for word in scene.caption.split()
            if word in words
        ]
        shares[kind] = sum(fits) / len(fits)
    assert shares == pytest.approx({"size": 0.84, "shape": 0.31, "colour": 0.20}, abs=0.006)


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
