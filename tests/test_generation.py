"""Sentences: greedy, by beams, and drawn by chance."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from minivit.captioner import Captioner
from minivit.generation import generate, sample
from tests.references.seeded import seeded
from tests.test_captioner import make_captioner

# ---- sentences ----------------------------------------------------------------------------------


def picture(index: int) -> Image.Image:
    pixels = (seeded(f"picture {index}", (32, 48, 3), 0) * 60 + 128).clamp(0, 255).byte()
    return Image.fromarray(pixels.numpy())


def test_nothing_leaks_from_one_picture_to_the_next() -> None:
    captioner = make_captioner()
    pictures = [picture(index) for index in range(3)]
    first = captioner.caption(pictures[:1])[0]
    captioner.caption(pictures[1:])
    again = captioner.caption(pictures[:1])[0]
    together = captioner.caption(pictures)[0]
    for other in (again, together):
        assert other.token_ids == first.token_ids
        torch.testing.assert_close(other.attention, first.attention, atol=1e-6, rtol=0)


def log_probability(captioner: Captioner, memory: object, ids: list[int], ended: bool) -> list:
    """Of each token, by running all words through the decoder at once."""
    tokenizer = captioner.tokenizer
    words = [tokenizer.start_id, *ids, *([tokenizer.end_id] if ended else [])]
    logits, _, _ = captioner.decode(torch.tensor([words[:-1]]), memory)
    return logits[0].log_softmax(-1).gather(1, torch.tensor(words[1:])[:, None])[:, 0].tolist()


@torch.inference_mode()
def test_greedy_takes_the_likeliest_word_each_time() -> None:
    """Against the plain way: all words again at every step, without a cache."""
    captioner = make_captioner()
    memory = captioner.look_at([picture(i) for i in range(6)])
    found = [best[0] for best in generate(captioner, memory)]
    for index, hypothesis in enumerate(found):
        one = captioner.look_at([picture(index)])
        ids: list[int] = []
        while len(ids) < captioner.config.max_length - 1:
            words = torch.tensor([[captioner.tokenizer.start_id, *ids]])
            token = int(captioner.decode(words, one)[0][0, -1].argmax())
            if token == captioner.tokenizer.end_id:
                break
            ids.append(token)
        assert hypothesis.token_ids == ids
        assert hypothesis.ended == (len(ids) < captioner.config.max_length - 1)
        expected = log_probability(captioner, one, ids, hypothesis.ended)
        assert hypothesis.log_probs == pytest.approx(expected, abs=1e-5)
        assert hypothesis.score == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def small_vocabulary() -> Captioner:
    """Four words: all sentences can be tried."""
    captioner = make_captioner(max_length=5)
    with torch.no_grad():
        captioner.head[2].bias[[0, 1, 3, 8, 9, 10, 11]] = -1e4  # pad, start, unknown, …
        captioner.head[2].weight.mul_(0.3)
    return captioner


@torch.inference_mode()
def test_a_wide_beam_finds_the_likeliest_sentence_of_all() -> None:
    captioner = small_vocabulary()
    end, choices = captioner.tokenizer.end_id, [4, 5, 6, 7]
    memory = captioner.look_at([picture(0)])
    everything: list[tuple[float, list[int], bool]] = []

    def extend(ids: list[int]) -> None:
        if ids:
            values = log_probability(captioner, memory, ids, ended=False)
        if len(ids) == 4:
            everything.append((sum(values), ids, False))
            return
        values = log_probability(captioner, memory, ids, ended=True)
        everything.append((sum(values), ids, True))
        for token in choices:
            extend([*ids, token])

    extend([])
    for penalty in (0.0, 1.0):
        ranked = sorted(
            everything,
            key=lambda item: -item[0] / (len(item[1]) + item[2]) ** penalty,
        )
        config = captioner.config
        assert end == captioner.tokenizer.end_id and config.vocabulary_size == 12
        found = generate(captioner, memory, beam_size=6, length_penalty=penalty)[0]
        total, ids, ended = ranked[0]
        assert (found[0].token_ids, found[0].ended) == (ids, ended)
        score = total / (len(ids) + ended) ** penalty
        assert found[0].score == pytest.approx(score, abs=1e-5)
        assert len(found) == 6
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        assert len({(tuple(h.token_ids), h.ended) for h in found}) == 6
        for hypothesis in found:
            expected = log_probability(captioner, memory, hypothesis.token_ids, hypothesis.ended)
            assert hypothesis.log_probs == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_beams_of_a_batch_are_those_of_each_picture() -> None:
    captioner = make_captioner()
    memory = captioner.look_at([picture(i) for i in range(4)])
    together = generate(captioner, memory, beam_size=3)
    for index in range(4):
        alone = generate(captioner, captioner.look_at([picture(index)]), beam_size=3)[0]
        assert [h.token_ids for h in together[index]] == [h.token_ids for h in alone]
        assert [h.score for h in together[index]] == pytest.approx([h.score for h in alone])


@torch.inference_mode()
def test_a_beam_is_never_worse_than_greedy() -> None:
    captioner = make_captioner()
    memory = captioner.look_at([picture(i) for i in range(8)])
    greedy = generate(captioner, memory, length_penalty=0.0)
    beams = generate(captioner, memory, beam_size=5, length_penalty=0.0)
    better = [b[0].score - g[0].score for g, b in zip(greedy, beams, strict=True)]
    assert sum(better) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0, expected 1 to 6"),
        ({"beam_size": 7}, "beam_size is 7, expected 1 to 6"),
        ({"max_length": 1}, "max_length is 1: this captioner writes 2 to 12 tokens"),
        ({"max_length": 13}, "max_length is 13"),
    ],
)
def test_impossible_wishes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_captioner().caption([picture(0)], **options)


# ---- drawing by chance --------------------------------------------------------------------------


@torch.inference_mode()
def test_samples_are_seeded_and_follow_the_probabilities() -> None:
    captioner = make_captioner()
    memory = captioner.look_at([picture(0)] * 400)
    found = sample(captioner, memory, seed=5)
    assert found == sample(captioner, memory, seed=5)
    assert found != sample(captioner, memory, seed=6)
    logits = captioner.decode(torch.tensor([[captioner.tokenizer.start_id]]), memory._replace(
        tokens=memory.tokens[:1]))[0][0, 0]  # fmt: skip
    first = torch.tensor([h.token_ids[0] if h.token_ids else 2 for h in found])
    share = torch.bincount(first, minlength=12) / len(found)
    assert (share - logits.softmax(-1)).abs().max() < 0.1
    for hypothesis in found[:5]:
        one = captioner.look_at([picture(0)])
        expected = log_probability(captioner, one, hypothesis.token_ids, hypothesis.ended)
        assert hypothesis.log_probs == pytest.approx(expected, abs=1e-4)


@torch.inference_mode()
def test_cold_or_narrow_sampling_is_greedy() -> None:
    captioner = make_captioner()
    memory = captioner.look_at([picture(i) for i in range(5)])
    greedy = [best[0].token_ids for best in generate(captioner, memory)]
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        found = sample(captioner, memory, seed=0, **options)
        assert [h.token_ids for h in found] == greedy


@torch.inference_mode()
def test_the_nucleus_holds_the_fewest_words_that_reach_it() -> None:
    from minivit.generation import _restrict

    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = _restrict(logits, None, 0.75)[0].isfinite().tolist()
    assert kept == [True, True, False, False]
    assert _restrict(logits, None, 0.85)[0].isfinite().tolist() == [True, True, True, False]
    assert _restrict(logits, 3, 1.0)[0].isfinite().tolist() == [True, True, True, False]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 1.5}, {"top_k": 0}])
def test_impossible_samples_are_refused(options: dict) -> None:
    captioner = make_captioner()
    with pytest.raises(ValueError, match="temperature"):
        sample(captioner, captioner.look_at([picture(0)]), seed=0, **options)
