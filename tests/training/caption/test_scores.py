"""Scores against references: the words and the numbers are those of COCO's evaluation code."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from minivit.training.caption.scores import MissingPackageError, caption_scores, caption_words

STORED = Path(__file__).parents[2] / "references" / "caption_scores.json"
SCORERS = ("pycocoevalcap.bleu.bleu", "pycocoevalcap.rouge.rouge", "pycocoevalcap.cider.cider")


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(STORED.read_text(encoding="utf-8"))


def test_words_are_those_of_the_java_tokenizer(stored: dict[str, Any]) -> None:
    for picture in stored["pictures"]:
        texts = [*picture["references"], picture["candidate"]]
        words = [*picture["reference_words"], picture["candidate_words"]]
        assert [" ".join(caption_words(text)) for text in texts] == words


def test_words_are_lower_case_without_marks_and_never_blank() -> None:
    assert caption_words("  The CAT, (a Tom) . ") == ["the", "cat", "-lrb-", "a", "tom", "-rrb-"]
    assert caption_words("") == caption_words(" .,:;-'\"! ? ") == []
    assert caption_words("Ein Café — 日本 🐈") == ["ein", "café", "日本"]


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch) -> None:
    for name in SCORERS:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    with pytest.raises(MissingPackageError, match=r'pip install "minivit\[captions\]"$') as caught:
        caption_scores([["a dog"]], ["a dog"])
    assert isinstance(caught.value, ImportError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("references", "candidates", "words"),
    [
        ([], [], "0 pictures"),
        ([["a"], ["b"]], ["a"], "2 pictures with references and 1 candidates"),
        ([["a"], []], ["a", "b"], "picture 1 has no reference"),
        ([["."], ["!"]], ["a", "b"], "no words"),
    ],
)
def test_what_cannot_be_scored_is_refused(references, candidates, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        caption_scores(references, candidates)


@pytest.mark.parity
def test_scores_are_those_of_the_whole_of_pycocoevalcap(stored: dict[str, Any], capfd) -> None:
    """The stored scores were made with its Java tokenizer, from the same texts."""
    pytest.importorskip("pycocoevalcap")
    pictures = stored["pictures"]
    scores = caption_scores(
        [picture["references"] for picture in pictures],
        [picture["candidate"] for picture in pictures],
    )
    assert scores == pytest.approx(stored["scores"], abs=1e-9)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert all(type(score) is float for score in scores.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parity
def test_the_best_and_the_worst_scores() -> None:
    pytest.importorskip("pycocoevalcap")
    texts = ["a red bus in the street", "two dogs run through green grass", "one man on a boat"]
    best = caption_scores([[text, "so it is"] for text in texts], texts)
    assert [best[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1] * 4)
    assert best["ROUGE-L"] == pytest.approx(1)
    assert caption_scores([[text] for text in texts], texts)["CIDEr-D"] == pytest.approx(10)
    worst = caption_scores([[text] for text in texts], ["", "xyz", "."])
    assert max(worst.values()) < 1e-3


@pytest.mark.parity
@pytest.mark.parametrize(
    ("references", "expected"),
    [
        ([["cat"], ["dog"]], 2.5),
        ([["a cat"], ["one dog"]], 5.0),
        ([["a cat sleeps"], ["one dog runs"]], 7.5),
        ([["a cat sleeps here"], ["one dog runs there"]], 10.0),
        ([["a cat sleeps here"], ["a cat sleeps there"]], 10.0),
        ([["a cat sleeps here", "it is so"], ["one dog runs there", "we see that"]], 5.0),
        ([["a cat sleeps here"]], 0.0),
        ([["a cat sleeps here"], ["a cat sleeps here"]], 0.0),
    ],
)
def test_cider_of_a_caption_that_is_a_reference(
    references: list[list[str]], expected: float
) -> None:
    pytest.importorskip("pycocoevalcap")
    score = caption_scores(references, [texts[0] for texts in references])["CIDEr-D"]
    assert score == pytest.approx(expected, abs=1e-6)
