"""How close captions come to what people wrote: BLEU, ROUGE-L and CIDEr-D, as COCO measures them.

BLEU: Papineni et al. 2002, n-grams shared with the references. ROUGE-L: Lin 2004, the longest
common subsequence. CIDEr-D: Vedantam et al. 2015, arXiv:1411.5726, n-grams weighted by how rare
they are among these references, so that a score of a few pictures means little (of one: 0). The
scorers are those of the package pycocoevalcap, the code behind the published numbers (extra
`captions`); its METEOR, its SPICE and its tokenizer need Java and are not used.

`caption_words` replaces the tokenizer for English captions. Captions of the built-in scenes are
better measured against the scenes themselves: `minivit.training.caption.scene_truth`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module

_BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|ave|blvd|rd|mt|ft|jr|sr|vs|etc|est|inc|co|corp|ltd|bros|dept|"
    "jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|fri|"
    "capt|col|gen|gov|lt|pres|rep|rev|sen|sgt"
)
_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))
_REPLACED = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."}
    | {bracket: f" {word} " for bracket, word in _BRACKETS.items()}
)
_CONTRACTIONS = re.compile(  # the empty places where a space goes
    r"""(?<=\w)(?=n't\b)                       # do n't
    | (?<=[^\W_])(?='(?:s|m|d|re|ve|ll)\b)    # it 's
    | (?<=\bcan)(?=not\b) | (?<=\bgon)(?=na\b) | (?<=\bwan)(?=na\b)
    | (?<=\bgot)(?=ta\b) | (?<=\bgim)(?=me\b) | (?<=\blem)(?=me\b)""",
    re.VERBOSE,
)
_WORDS = re.compile(
    rf"""-[lr][rsc]b-                            # a bracket
    | (?:[a-z]\.)+(?![^\W_])                     # a.m.
    | (?:{_ABBREVIATIONS})\.(?![^\W_])           # dr.
    | (?<!\S)(?:n't|'(?:s|m|d|re|ve|ll))(?!\w)   # cut off by _CONTRACTIONS
    | \d+(?:[.,:]\d+)+                           # 1,000.50, 5:30
    | [^\W_]+(?:(?:[-./@_]|'(?=[a-z]))[^\W_]+)*  # t-shirt, o'clock, and/or
    | [?!]{{2,}}                                 # only a single one is dropped
    | [$%#&*+=~^|\\/@_<>°]""",
    re.VERBOSE,
)


class MissingPackageError(ImportError):
    """An optional package is not installed; the message is one line that says how to get it."""


def caption_words(text: str) -> list[str]:
    """An English caption as the words that are compared: lower case, without punctuation.

    The words are those of Stanford's PTBTokenizer without the punctuation that pycocoevalcap
    drops: contractions are cut (do n't, man 's, can not), as are $ % # & and the like; hyphens and
    slashes within a word stay, full stops in numbers and abbreviations too (3.5, u.s., dr.); other
    marks ``. , : ; ? ! - -- ...`` and quotes are dropped. Two oddities are kept, so that the
    numbers are COCO's: brackets become words, -lrb- and -rrb-, and ?! and !! are words. Known to
    differ: fractions and currencies that have a character of their own, '80s, 'n', :-), @name.
    """
    text = text.lower().translate(_REPLACED)
    return _WORDS.findall(_CONTRACTIONS.sub(" ", text))


def caption_scores(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D over a set of pictures.

    Args:
        references: Captions that people wrote, one or more for each picture.
        candidates: Caption to judge, one for each picture.

    Returns:
        "BLEU-1" to "BLEU-4" and "ROUGE-L" from 0 to 1, "CIDEr-D" from 0; papers give a hundred
        times that. A ROUGE-L of 1 does not mean that a caption equals a reference: the best
        precision and the best recall may come from two of them (pycocoevalcap 1.2,
        findings/caption_scores_several_references.sh).

        CIDEr-D is 10 for a caption that equals its only reference, has four words or more, and
        some that not all pictures share. It is a mean over n-grams of one to four words and over
        the references, so that the same caption gets 2.5, 5.0 or 7.5 with one, two or three words,
        and 5.0 where a second reference shares nothing with the first. A word that all pictures
        have weighs nothing: one picture alone, or pictures described alike, get 0.0.

    Raises:
        MissingPackageError: pycocoevalcap is not installed.
        ValueError: No pictures, another number of candidates, a picture without references, or
            references without a single word.
    """
    if not references or len(references) != len(candidates):
        counts = f"{len(references)} pictures with references and {len(candidates)} candidates"
        raise ValueError(f"{counts}; expected as many of both, one or more")
    if empty := [index for index, texts in enumerate(references) if not texts]:
        raise ValueError(f"picture {empty[0]} has no reference; expected one caption or more")
    truth = {i: [" ".join(caption_words(t)) for t in texts] for i, texts in enumerate(references)}
    judged = {i: [" ".join(caption_words(text))] for i, text in enumerate(candidates)}
    if not any(any(texts) for texts in truth.values()):
        raise ValueError("the references hold no words")
    try:
        bleu = import_module("pycocoevalcap.bleu.bleu").Bleu(4)
        rouge = import_module("pycocoevalcap.rouge.rouge").Rouge()
        cider = import_module("pycocoevalcap.cider.cider").Cider()
    except ImportError as error:
        need = f"caption scores need the package pycocoevalcap ({error})"
        raise MissingPackageError(f'{need}: pip install "minivit[captions]"') from error
    scores = dict(zip(_BLEU, bleu.compute_score(truth, judged, verbose=0)[0], strict=True))
    scores["ROUGE-L"] = rouge.compute_score(truth, judged)[0]
    scores["CIDEr-D"] = cider.compute_score(truth, judged)[0]
    return {name: float(score) for name, score in scores.items()}
