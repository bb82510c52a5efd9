"""Checks of lesson 8: from picture to sentence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.generation import Beams
from minivit.masks import causal_mask
from minivit.training.caption.grounding import KINDS
from minivit.training.caption.task import caption_loss
from minivit.word_maps import decoder_input
from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_gradient,
    expect_shape,
)

__all__ = [
    "check_beam_step",
    "check_cached_step",
    "check_causal_mask",
    "check_picture_gain",
    "check_sentence_loss",
]


@exercise("8.1", "Write a causal mask that also serves a cache")
def check_causal_mask(answer: Callable[[int, int], Tensor]) -> None:
    """(N, M) boolean, True = may attend, the last query sees every key."""
    mask = ask(answer, 5, 5)
    expect_shape(mask, (5, 5), "(N, M)")
    if mask.is_floating_point() and bool(mask.isinf().any()):
        raise NotSolved(
            f"the mask is {mask.dtype} with 0 and -inf, which is added to scores; here a boolean "
            "one is expected, True = may attend"
        )
    if mask.dtype != torch.bool:
        raise NotSolved(
            f"the mask is {mask.dtype}, and a boolean one is expected (True = may attend): numbers "
            "would be added to the scores, and 0 and 1 hide nothing there"
        )
    square = causal_mask(5, 5)
    expect_close(
        mask,
        square,
        {
            "no word sees itself: the diagonal is False, and row 0 sees nothing at all": square
            & ~torch.eye(5, dtype=torch.bool),
            "True and False are swapped: True = may attend, and your row 0 may attend to all "
            "but itself": ~square,
            "each word sees itself and what comes after it: the triangle is the upper one, so "
            "rows and columns are swapped": square.T,
            "every word sees every word: nothing is hidden": torch.ones(5, 5).bool(),
        },
        "for 5 queries and 5 keys row i must be True at columns 0 to i, and it is not",
    )
    mask = ask(answer, 2, 5)
    expect_shape(mask, (2, 5), "(N, M) with N = 2 new words and M = 5 words in all")
    expect_close(
        mask,
        causal_mask(2, 5),
        {
            "with 2 queries and 5 keys your row 0 sees key 0 alone: the triangle begins at the "
            "upper left, as if the queries were the first words. With a cache they are the last "
            "ones: shift the diagonal by M - N": torch.ones(2, 5).tril().bool(),
            "with 2 queries and 5 keys nothing may be seen: the diagonal is shifted to the wrong "
            "side: M - N, not N - M": torch.zeros(2, 5).bool(),
        },
        "with 2 queries and 5 keys the last row must see all 5 keys and the one before it 4",
    )
    expect_close(ask(answer, 1, 4), torch.ones(1, 4), {}, "one query, the last word, sees all keys")


@exercise("8.2", "Write the loss of teacher forcing")
def check_sentence_loss(answer: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """Mean cross-entropy of the next words, without padding."""
    generator = torch.Generator().manual_seed(82)
    pad = 3
    tokens = torch.tensor([[1, 4, 5, 6, 4, 2], [1, 6, 2, pad, pad, pad]])  # (B, T)
    logits = 2 * torch.randn(2, 6, 7, generator=generator)  # (B, T, V)
    logits.requires_grad_()
    try:
        loss = ask(answer, logits, tokens, pad)
    except NotSolved as wrong:
        if "Expected target size" not in str(wrong):
            raise
        raise NotSolved(
            f"{wrong}: cross_entropy takes dimension 1 for the classes, and yours are the last "
            "one: flatten to (n, V) and (n,), or bring V to dimension 1"
        ) from None
    expect_shape(loss, (), "() for one number")
    targets = tokens[:, 1:]
    count = int((targets != pad).sum())
    right = caption_loss(logits[:, :-1], targets, pad) / count
    each = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, ignore_index=pad, reduction="none"
    )
    unshifted = caption_loss(logits, tokens, pad) / int((tokens != pad).sum())
    backwards = caption_loss(logits[:, 1:], tokens[:, :-1], pad) / int(
        (tokens[:, :-1] != pad).sum()
    )
    squeezed = logits.softmax(dim=-1)[:, :-1]
    everywhere = F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")

    def no_logarithm(values: Tensor) -> Tensor:
        return F.nll_loss(values.flatten(0, 1), targets.flatten(), ignore_index=pad)

    expect_close(
        loss,
        right,
        {
            "each position is asked for the word that it has just read: shift the targets by one, "
            "logits[:, :-1] against tokens[:, 1:]": unshifted,
            "the shift goes the wrong way: the row that reads word i + 1 is asked for word i": (
                backwards
            ),
            "padding is counted as words to learn: leave out targets that are pad_id "
            "(`ignore_index`)": F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten()),
            "the sum over the words is divided by all positions, those of padding among them: "
            "divide by the number of real targets": right * count / targets.numel(),
            "the losses are added and not divided: a batch of long sentences would count for "
            "more": right * count,
            "each sentence has the same weight, and so a word of a short one counts for more: take "
            "the mean over all words of the batch": (each.sum(1) / (targets != pad).sum(1)).mean(),
            "the sign is turned: the loss is minus the log-probability": -right,
            "softmax is taken twice: cross_entropy wants logits": caption_loss(
                squeezed, targets, pad
            )
            / count,
            "padding is looked for in the words that are read, tokens[:, :-1]: leave out the "
            "places where the word that is asked for, tokens[:, 1:], is pad_id": everywhere[
                tokens[:, :-1] != pad
            ].mean(),
            "these are raw logits: nll_loss wants log-probabilities (`log_softmax` before it, or "
            "cross_entropy in its place)": no_logarithm(logits[:, :-1]),
            "this is the mean of the probabilities p, and the loss has their logarithms": (
                -no_logarithm(squeezed)
            ),
            "this is the mean of -p, and the loss has -log p": no_logarithm(squeezed),
        },
        "the number differs from the mean of -log p(next word) over the words that are no padding",
    )
    expect_gradient(loss, logits, "the logits")


@exercise("8.3", "Write one step of a beam search")
def check_beam_step(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> None:
    """The K best of all K·V continuations: totals, beams, words."""
    # Beam 0 leads so far that two of its words come before the best of beam 1.
    scores = torch.tensor([-1.0, -2.5, -2.75])  # (K,)
    shares = torch.tensor(
        [[0.5, 0.3, 0.1, 0.06, 0.04], [0.1, 0.05, 0.7, 0.1, 0.05], [0.2, 0.2, 0.15, 0.4, 0.05]]
    )
    log_probs = shares.log()  # (K, V)
    value = ask(answer, scores, log_probs)
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise NotSolved("three tensors are expected: totals, numbers of beams, numbers of words")
    totals, beams, words = value
    for part, name in ((totals, "totals"), (beams, "beams"), (words, "words")):
        expect_shape(part, (3,), f"{name} (K,)")
    start = Beams(
        tokens=torch.zeros(3, 1, dtype=torch.int64),
        log_probs=torch.zeros(3, 0),
        scores=scores[None],  # (K,) -> (1, K)
    )
    right = start.rank(log_probs, 3)
    each = log_probs.max(dim=1).values
    without, _ = log_probs.flatten().topk(3)
    places = right.rows[0] * 5 + right.words[0]
    if any(_equal(part, right.totals[0]) for part in (beams, words)):
        raise NotSolved("the order is totals, beams, words: your totals do not come first")
    expect_close(
        totals,
        right.totals[0],
        {
            "each beam went on once, with its own best word: rank all K·V continuations together, "
            "a leading beam may go on twice": (scores + each).sort(descending=True).values,
            "each beam went on once, with its own best word, and they are not sorted": scores
            + each,
            "the scores of the beams so far are forgotten: only the last word counts": without,
            "the K best are right, and the worst of them comes first: give the best first": (
                right.totals[0].flip(0)
            ),
            "these are the worst continuations of all: take the largest totals": (
                (scores[:, None] + log_probs).flatten().topk(3, largest=False).values
            ),
            "log-probabilities are multiplied: the probability of a sentence is a product, so its "
            "logarithm is a sum": (scores[:, None] * log_probs).flatten().topk(3).values,
        },
        "the totals are not the K largest sums of a beam's score and a word's log-probability",
    )
    for part, name in ((beams, "beams"), (words, "words")):
        if part.is_floating_point():
            raise NotSolved(
                f"the numbers of {name} are {part.dtype}, and whole numbers are expected: divide "
                "with //, not with /"
            )
    if _equal(words, right.rows[0]) and _equal(beams, right.words[0]):
        raise NotSolved(
            "beams and words are swapped: the order is totals, beams, words, and the flat place is "
            "beam · V + word, so the beam is the quotient (// V) and the word the remainder (% V)"
        )
    expect_close(
        words,
        right.words[0],
        {
            "quotient and remainder are swapped: the flat place is beam · V + word, so the word is "
            "the remainder (% V)": places // 5,
            "the word is divided by the number of beams: the flat place is beam · V + word, with V "
            "the number of words": places % 3,
            "the words are places in the flat list of K·V: bring them back with % V": places,
        },
        "the totals are right, and the words do not belong to them",
    )
    expect_close(beams, right.rows[0], {}, "totals and words are right, and the beams are not")


def _equal(value: Tensor, expected: Tensor) -> bool:
    return torch.allclose(value.double(), expected.double(), rtol=1e-5, atol=1e-5)


@exercise("8.4", "Write attention with a cache")
def check_cached_step(answer: Callable[..., tuple[Tensor, Any]]) -> None:
    """Step by step, the same numbers as causal attention in one pass."""
    generator = torch.Generator().manual_seed(84)
    query, key, value = torch.randn(3, 2, 3, 5, 7, generator=generator)  # 3 of (B, H, T, d)
    key, value = 1.5 * key, value + 0.5
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    cache: Any = None
    outputs = []
    for step in range(5):
        one = slice(step, step + 1)
        pair = ask(answer, query[:, :, one], key[:, :, one], value[:, :, one], cache)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise NotSolved("a pair is expected: the output, and the cache (keys, values)")
        if not isinstance(pair[0], Tensor) and isinstance(pair[1], Tensor):
            raise NotSolved("the two are swapped: the output comes first, then the cache")
        output, cache = pair
        expect_shape(output, (2, 3, 1, 7), "(B, H, 1, d)")
        if not isinstance(cache, (tuple, list)) or len(cache) != 2:
            raise NotSolved(
                f"after word {step} the cache is expected to be a pair, keys and values, and this "
                f"is {'None' if cache is None else type(cache).__name__}"
            )
        for part, name in zip(cache, ("keys", "values"), strict=True):
            if not isinstance(part, Tensor) or part.dim() != 4:
                raise NotSolved(f"the cache's {name} are expected to be a tensor (B, H, t, d)")
            if part.shape[2] != step + 1:
                raise NotSolved(
                    f"after word {step} the cache holds {part.shape[2]} {name}, and {step + 1} are "
                    "expected: append the new one along dimension 2, and give all of them back"
                )
        so_far = {"keys": key[:, :, : step + 1], "values": value[:, :, : step + 1]}
        for part, name, other in zip(cache, ("keys", "values"), ("values", "keys"), strict=True):
            expect_close(
                part,
                so_far[name],
                {
                    f"the cache holds the {other} where the {name} are expected: it is the pair "
                    "(keys, values)": so_far[other],
                    f"the cache's {name} begin with the newest word: append the new one after "
                    "those that are there, `torch.cat([old, new], dim=2)`": so_far[name].flip(2),
                },
                f"after word {step} the cache's {name} are not those of words 0 to {step}, in "
                "order and unchanged",
            )
        outputs.append(output)
    unseen = torch.cat(  # the new word does not see itself; the first one sees nothing
        [
            F.scaled_dot_product_attention(query[:, :, [t]], key[:, :, :t], value[:, :, :t])
            if t
            else torch.zeros(2, 3, 1, 7)
            for t in range(5)
        ],
        dim=2,
    )
    later = torch.cat([value[:, :, :1], unseen[:, :, 1:]], dim=2)  # the first one sees itself
    first = value[:, :, :1].expand(-1, -1, 5, -1)
    scores = query @ key.transpose(-2, -1) / math.sqrt(7)  # (B, H, T, T)
    swapped = F.scaled_dot_product_attention(query, value, key, is_causal=True)
    unscaled = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
    expect_close(
        torch.cat(outputs, dim=2),
        expected,
        {
            "every step gives the first word's value: `is_causal=True` with one query lets it see "
            "the first key only (torch begins at the upper left); one query, the last, needs no "
            "mask": first,
            "the new word does not see itself: append its key and value before you attend": unseen,
            "from the second word on the new word does not see itself, only the cache as it was "
            "given: append its key and value before you attend": later,
            "each word sees itself alone: attend to the keys and values of the cache, not to the "
            "new ones": value,
            "keys and values are swapped": swapped,
            "the scores are not divided by √d": unscaled,
            "the scores are divided by √(H·d): d is the width of one head, query.shape[-1]": (
                F.scaled_dot_product_attention(
                    query, key, value, is_causal=True, scale=1 / math.sqrt(3 * 7)
                )
            ),
            "softmax ran over the one query, so each key has the weight 1: run it over the keys, "
            "dim=-1": value.cumsum(dim=2),
            "softmax ran over the heads: run it over the keys, dim=-1": (
                scores.softmax(dim=1).tril() @ value
            ),
        },
        "the five steps differ from causal attention over the five words in one pass",
        tolerance=1e-4,
    )


@functools.cache
def _logits() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of true captions with the own and with the next scene's picture, and the tokens."""
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, minivit.Captioner)
    tokenizer = captioner.tokenizer
    scenes = [make_scene(TEST_SEED, index) for index in range(40)]
    sentences = [[*tokenizer.encode(scene.caption), tokenizer.end_id] for scene in scenes]
    tokens = decoder_input(sentences, tokenizer)  # (B, T)
    with torch.no_grad():
        memory = captioner.encode_photos([scene.image for scene in scenes])
        other = memory._replace(tokens=memory.tokens.roll(-1, dims=0))  # scene i sees i + 1
        own, swapped = (captioner.decode(tokens[:, :-1], each)[0] for each in (memory, other))
    return own, swapped, tokens


def picture_gain(mistake: str = "") -> dict[str, tuple[float, float, int]]:
    """Mean log p with the own picture, with the other one, and the number of words, by kind.

    Args:
        mistake: Empty for the right numbers. "reads": the row that reads a word is asked for it.
            "after": the word after one of a kind is asked for. "logits" and "probabilities" stand
            in the place of log p. "scenes": a mean over scenes of the means of their words.
    """
    own, swapped, tokens = _logits()
    asked_words = tokens[:, :-1] if mistake == "reads" else tokens[:, 1:]
    placing_words = tokens[:, :-1] if mistake in ("reads", "after") else tokens[:, 1:]
    vocabulary = _vocabulary()
    table = {}
    for kind, words in KINDS.items():
        chosen = torch.tensor([word in words for word in vocabulary])[placing_words]  # (B, T - 1)
        means = []
        for logits in (own, swapped):
            values = logits if mistake == "logits" else logits.log_softmax(dim=-1)
            values = values.exp() if mistake == "probabilities" else values
            values = values.gather(2, asked_words[..., None])[..., 0]  # (B, T - 1, V) -> (B, T - 1)
            if mistake == "scenes":
                sums = (values * chosen).sum(dim=1)  # (B, T - 1) -> (B,)
                means.append(float((sums / chosen.sum(dim=1))[chosen.any(dim=1)].mean()))
            else:
                means.append(float(values[chosen].mean()))
        table[kind] = (means[0], means[1], int(chosen.sum()))
    return table


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, minivit.Captioner)
    return captioner.tokenizer.vocabulary


@exercise("8.5", "Measure what the picture tells about each kind of word")
def check_picture_gain(answer: Mapping[str, float]) -> None:
    """Nats by kind of word that the right picture gives over a wrong one."""
    if not isinstance(answer, Mapping):
        raise NotSolved('a dictionary is expected: {"size": …, "colour": …, "shape": …}')
    if missing := [kind for kind in KINDS if kind not in answer]:
        raise NotSolved(f"no number for {', '.join(missing)}: the keys are {', '.join(KINDS)}")
    table = picture_gain()
    wrong = {
        mistake: {kind: own - other for kind, (own, other, _) in picture_gain(mistake).items()}
        for mistake in ("reads", "after", "logits", "probabilities", "scenes")
    }
    for kind, (own, other, count) in table.items():
        value = answer[kind]
        try:
            value = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise NotSolved(f"the value for {kind!r} is no number") from None
        expect_close(
            value,
            own - other,
            {
                f"{kind}: the sign is turned: the own picture makes the true word likelier, so "
                "log p(own) - log p(other) is above 0": other - own,
                f"{kind}: this is the loss with the other picture; subtract that with the own": (
                    -other
                ),
                f"{kind}: this is the loss with the own picture; the question is how much it grows "
                "with another": -own,
                f"{kind}: this is a sum over words: divide by their number, {count}": count
                * (own - other),
                f"{kind}: these are the rows that read the word, not those that predict it: the "
                "logits of row i are about token i + 1": wrong["reads"][kind],
                f"{kind}: these are the words that come after one of this kind: pick the places by "
                "the words that are asked for, tokens[:, 1:]": wrong["after"][kind],
                f"{kind}: these are differences of raw logits: take `log_softmax` first": wrong[
                    "logits"
                ][kind],
                f"{kind}: these are differences of probabilities: take those of their "
                "logarithms": wrong["probabilities"][kind],
                f"{kind}: this is a mean over scenes of the means of their words: take one mean "
                "over all such words of all scenes": wrong["scenes"][kind],
                f"{kind}: these are bits: take the natural logarithm": (own - other) / math.log(2),
            },
            f"{kind}: {value:.3f} nats, and the mean over {count} words of 40 scenes is another "
            "number: were the captions the true ones, and did scene i see the picture of scene "
            "i + 1, the last one that of scene 0?",
            tolerance=2e-3,
        )
