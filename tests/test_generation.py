"""Search and sampling on tables of four words, where every sentence can be worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit.generation import Hypothesis, generate, sample

WORDS = "^.ab"  # the start token, the end token and two words
START, END = 0, 1
NEVER = 1e-9
ENDS = {".": 1.0}


class Table:
    """`NextWords` of some pictures: how likely each word comes next, by the words so far.

    Args:
        tables: Table of each picture. A word that it does not name comes (almost) never; after
            words that it does not name, a sentence ends.
        words: Letter of each word.
        max_length: Greatest number of tokens.
    """

    def __init__(
        self,
        *tables: Mapping[str, Mapping[str, float]],
        words: str = WORDS,
        max_length: int = 6,
    ) -> None:
        self.tables, self.words = tables, words
        self.num_pictures = len(tables)
        self.start_id, self.end_id = START, END
        self.vocabulary_size = len(words)
        self.max_length = max_length
        self.device = torch.device("cpu")
        self.texts: list[str] = []  # what each sentence has read

    def logits(self, last_words: Tensor) -> Tensor:
        read = zip(self.texts or [""] * len(last_words), last_words.tolist(), strict=True)
        self.texts = [text + self.words[word] for text, word in read]
        beams = len(self.texts) // self.num_pictures
        rows = []
        for row, text in enumerate(self.texts):
            likely = self.tables[row // beams].get(text[1:], ENDS)
            rows.append([likely.get(word, NEVER) for word in self.words])
        return torch.tensor(rows).log()

    def reorder(self, index: Tensor) -> None:
        self.texts = [self.texts[place] for place in index.tolist()]


def text(sentence: Hypothesis, words: str = WORDS) -> str:
    return "".join(words[token] for token in sentence.token_ids) + "." * sentence.ended


def texts(sentences: list[Hypothesis]) -> list[str]:
    return [text(sentence) for sentence in sentences]


def logs(*probabilities: float) -> Any:
    return pytest.approx([math.log(each) for each in probabilities], abs=1e-5)


# "a" is the likelier first word, but "b." is the likelier sentence: 0.36 beside 0.30.
TRAP = {"": {"a": 0.6, "b": 0.4}, "a": {".": 0.5, "a": 0.3, "b": 0.2}, "b": {".": 0.9, "b": 0.1}}
# It stops with 0.4 each time, after three words for sure: "." has 0.4 and "aaa." has 0.216.
PATIENT = {"a" * count: {"a": 0.6, ".": 0.4} for count in range(3)}


# ---- the likeliest sentences ---------------------------------------------------------------------


def test_what_a_search_is() -> None:
    """It asks how likely each word comes next, takes one, and asks again, until the end token."""
    table = Table({"": {"a": 0.6, "b": 0.4}, "a": {"b": 0.7, ".": 0.3}, "ab": {".": 0.9, "a": 0.1}})
    [[sentence]] = generate(table)
    assert table.texts == ["^ab"]  # what it read; after that it was told to end
    assert [WORDS[token] for token in sentence.token_ids] == ["a", "b"]
    assert sentence.ended
    assert sentence.log_probs == logs(0.6, 0.7, 0.9)  # the last is that of the end token
    assert sentence.score == pytest.approx(math.log(0.6 * 0.7 * 0.9) / 3, abs=1e-5)


def test_greedy_takes_the_likeliest_word_each_time() -> None:
    [[sentence]] = generate(Table(TRAP))
    assert text(sentence) == "a."
    assert sentence.log_probs == logs(0.6, 0.5)


def test_two_beams_find_the_better_sentence_that_greedy_misses() -> None:
    [sentences] = generate(Table(TRAP), beam_size=2)
    assert texts(sentences) == ["b.", "a."]
    assert sentences[0].log_probs == logs(0.4, 0.9)
    assert sentences[0].score == pytest.approx(math.log(0.36) / 2, abs=1e-5)


def test_beams_go_on_from_the_words_that_they_have() -> None:
    """Both beams come from "b" at the second word: the caches of the search must follow."""
    table = {
        "": {"a": 0.55, "b": 0.45},
        "a": {"a": 0.2, "b": 0.2, ".": 0.2, "^": 0.4},
        "b": {"a": 0.5, "b": 0.49, ".": 0.01},
        "ba": {"b": 0.9, ".": 0.1},
        "bb": {"a": 0.8, ".": 0.2},
    }
    [sentences] = generate(Table(table), beam_size=2)
    assert texts(sentences) == ["bab.", "bba."]
    assert sentences[0].log_probs == logs(0.45, 0.5, 0.9, 1.0)
    assert sentences[1].log_probs == logs(0.45, 0.49, 0.8, 1.0)


@pytest.mark.parametrize(
    ("penalty", "likeliest"), [(0.0, [".", "a."]), (1.0, ["aaa.", "aa."]), (-1.0, [".", "a."])]
)
def test_the_length_penalty_decides_between_short_and_long(
    penalty: float, likeliest: list[str]
) -> None:
    [sentences] = generate(Table(PATIENT), beam_size=2, length_penalty=penalty)
    assert texts(sentences) == likeliest
    for sentence in sentences:
        length = len(sentence.log_probs)
        assert sentence.score == pytest.approx(sum(sentence.log_probs) / length**penalty)


def test_the_length_penalty_does_nothing_with_one_beam() -> None:
    for penalty in (-1.0, 0.0, 1.0, 3.0):
        [[sentence]] = generate(Table(PATIENT), length_penalty=penalty)
        assert text(sentence) == "aaa."


def test_a_sentence_that_reaches_the_greatest_length_is_cut() -> None:
    [[sentence]] = generate(Table(PATIENT), max_length=3)
    assert (text(sentence), sentence.ended) == ("aa", False)
    assert sentence.log_probs == logs(0.6, 0.6)
    [[whole]] = generate(Table(PATIENT), max_length=5)
    assert (text(whole), whole.ended) == ("aaa.", True)
    assert generate(Table(PATIENT, max_length=3)) == [[sentence]]


def test_cut_sentences_are_ranked_among_those_that_ended() -> None:
    [sentences] = generate(Table(PATIENT), beam_size=2, max_length=3, length_penalty=0.0)
    assert texts(sentences) == [".", "aa"]  # 0.4 and 0.36; "a." has 0.24
    assert [sentence.ended for sentence in sentences] == [True, False]


def test_a_picture_is_done_when_nothing_better_is_in_sight() -> None:
    """After two words both sentences of TRAP have ended, and no other has 0.3 left."""
    table = Table(TRAP)
    generate(table, beam_size=2, length_penalty=0.0)
    assert {len(read) for read in table.texts} == {2}  # the start token and one word
    table = Table(PATIENT)  # "." has ended at once; "aaa." could overtake, and does
    generate(table, beam_size=2)
    assert {len(read) for read in table.texts} == {4}


@pytest.mark.parametrize("beam_size", [1, 2])
def test_pictures_of_a_batch_do_not_disturb_each_other(beam_size: int) -> None:
    """One ends at its first word, the others go on without it."""
    tables = [PATIENT, {"": {".": 0.9, "a": 0.1}}, TRAP, PATIENT]
    together = generate(Table(*tables), beam_size=beam_size)
    alone = [generate(Table(table), beam_size=beam_size)[0] for table in tables]
    assert together == alone
    assert len({text(sentences[0]) for sentences in together}) == 3


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_for_all_sentences_find_all_sentences(penalty: float) -> None:
    """16 beams have room for every sentence of up to three words, a and b."""
    words = WORDS + "cdefghijklmnopqrstuvwxyzABCD"  # more words, which never come, allow 16 beams
    generator = torch.Generator().manual_seed(1)
    table: dict[str, dict[str, float]] = {}
    probability = {"": 1.0}
    for length in range(3):
        for so_far in map("".join, itertools.product("ab", repeat=length)):
            three = torch.rand(3, generator=generator).softmax(dim=0).tolist()
            table[so_far] = dict(zip("ab.", three, strict=True))
            for word, share in table[so_far].items():
                probability[so_far + word] = probability[so_far] * share
    score = {name: math.log(p) / max(1, len(name)) ** penalty for name, p in probability.items()}
    whole = [name for name in score if name.endswith(".") or len(name) == 3]
    [sentences] = generate(
        Table(table, words=words, max_length=4), beam_size=16, length_penalty=penalty
    )
    assert texts(sentences[:-1]) == sorted(whole, key=lambda name: -score[name])
    for sentence in sentences[:-1]:
        assert sentence.score == pytest.approx(score[text(sentence)], abs=1e-5)
    assert len(whole) == 15 and sentences[-1].score < math.log(NEVER) / 3**penalty + 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0, expected 1 to 2"),
        ({"beam_size": 3}, "beam_size is 3, expected 1 to 2"),
        ({"max_length": 1}, "max_length is 1: this captioner writes 2 to 6 tokens"),
        ({"max_length": 7}, "max_length is 7"),
    ],
)
def test_impossible_searches_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(Table(TRAP), **options)  # type: ignore[arg-type]


# ---- sentences by chance -------------------------------------------------------------------------

COIN = {"": {"a": 0.5, "b": 0.3, ".": 0.15, "^": 0.05}}
MANY = 4_000


def first_words(**options: Any) -> dict[str, float]:
    """The fraction of samples that begin with each word."""
    sentences = sample(Table(*[COIN] * MANY, max_length=2), seed=3, **options)
    return {word: count / MANY for word, count in Counter(texts(sentences)).items()}


def about(shares: dict[str, float]) -> Any:
    """Fractions of 4,000 draws, to four standard deviations."""
    total = sum(shares.values())
    return pytest.approx({word: share / total for word, share in shares.items()}, abs=0.03)


def test_words_are_drawn_as_often_as_they_are_likely() -> None:
    assert first_words() == about(COIN[""])


def test_temperature_flattens_or_sharpens() -> None:
    """Probabilities to the power of 1 / temperature, divided by their sum."""
    for temperature in (0.5, 2.0):
        expected = about({word: share ** (1 / temperature) for word, share in COIN[""].items()})
        assert first_words(temperature=temperature) == expected


def test_top_k_leaves_the_likeliest_words() -> None:
    assert first_words(top_k=2) == about({"a": 0.5, "b": 0.3})
    assert first_words(top_k=1) == {"a": 1.0}
    assert first_words(top_k=4) == first_words(top_k=100) == first_words()


def test_top_p_leaves_the_fewest_words_that_reach_it() -> None:
    assert first_words(top_p=0.49) == {"a": 1.0}
    assert first_words(top_p=0.75) == about({"a": 0.5, "b": 0.3})
    assert first_words(top_p=0.85) == about({"a": 0.5, "b": 0.3, ".": 0.15})
    assert first_words(top_p=0.85, top_k=2) == first_words(top_k=2)


def test_the_seed_decides() -> None:
    def draw(seed: int) -> list[Hypothesis]:
        return sample(Table(*[PATIENT] * 50), seed=seed)

    assert draw(5) == draw(5) != draw(6)


def test_cold_or_narrow_sampling_is_greedy() -> None:
    greedy = [best for best, *_ in generate(Table(TRAP, PATIENT))]
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}):
        assert texts(sample(Table(TRAP, PATIENT), seed=0, **options)) == texts(greedy)  # type: ignore[arg-type]


def test_a_sample_stops_at_its_end_token_and_keeps_the_tables_own_probabilities() -> None:
    """Some end at once, some later and some are cut; temperature does not change what is told."""
    sentences = sample(Table(*[PATIENT] * 200), seed=1, temperature=3.0, max_length=4)
    assert set(texts(sentences)) >= {".", "a.", "aa.", "aaa"}
    for sentence in sentences:
        name = text(sentence)
        if set(name) <= {"a", "."}:
            assert sentence.log_probs == logs(*(0.4 if word == "." else 0.6 for word in name))
        assert END not in sentence.token_ids
        assert sentence.ended or len(sentence.token_ids) == 3
        mean = sum(sentence.log_probs) / len(sentence.log_probs)
        assert sentence.score == pytest.approx(mean)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_p": 1.5}, {"top_p": 0.0}, {"top_k": 0}]
)
def test_impossible_samples_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"temperature .*, top_p .*, top_k .*: expected above 0"):
        sample(Table(COIN), seed=0, **options)
    with pytest.raises(ValueError, match="max_length is 9: this captioner writes 2 to 6 tokens"):
        sample(Table(COIN), seed=0, max_length=9)
