"""Tokens, ids and decoded texts of transformers' BertTokenizer: tokenizer.json.

    python -m tests.references.make_tokenizer      (from the top of the repository; needs
                                                    transformers 5)

The file holds a small vocabulary, which this script makes, and what the pure-Python variant of the
tokenizer gives with it: for texts, and for ids in any order. Characters are from Unicode 3.2, so
that the answers do not depend on the Python that gives them.
"""

from __future__ import annotations

import json
import string
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from transformers import BertTokenizer, BertTokenizerLegacy

SEED = 2021
FILE = Path(__file__).parent / "tokenizer.json"

WORDS = """a an the and of on in with to at is are it s t m ve re don isn can man men woman people
    dog dogs cat cats horse bird two three young small large red green blue black white sit sitting
    stand standing ride riding hold holding play look snow board beach street table field water
    wave surf ski bike bicycle umbrella girl boy sheep grass near next under over cafe naive uber
    resume creme 10 20 2021 year old one he she they his her"""
PIECES = """s ed er ers ing ly board boarder boarders ball man men fall way side walk able un ness
    sit ight an in on at the ee oo ch sh th ck 0 00 21 st nd rd"""
OTHERS = "αβγδεσςωабвгд日本語中国人山川あいうカタナאבגشسلÆæßøłđıﬁ１½²€£©°→≤♥☀☺"
VOCABULARY = tuple(
    dict.fromkeys(
        [
            "[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
            *string.punctuation, "…", "–", "—", "“", "”", "‘", "’", "¿", "、", "。", "「", "」",
            *string.ascii_lowercase, *string.digits, *WORDS.split(), *OTHERS.lower(), "ᄒ", "ᄀ",
            *(f"##{piece}" for piece in (*string.ascii_lowercase, *string.digits, *PIECES.split())),
            *(f"##{character}" for character in "αβσςωабвгшسلあタß²ᅡᆫᅮᆨ"),
        ]
    )
)  # fmt: skip

BLOCKS = (
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x2B0, 0x2FF),
    (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x58A), (0x591, 0x5F4), (0x60C, 0x6FE),
    (0x901, 0x970), (0xE01, 0xE5B), (0x10A0, 0x10FB), (0x1100, 0x11F9), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20B1), (0x20D0, 0x20EA), (0x2100, 0x214B),
    (0x2190, 0x22FF), (0x2460, 0x24FF), (0x2600, 0x27BE), (0x3000, 0x30FF), (0x3200, 0x32FE),
    (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFA6A), (0xFB00, 0xFDFB),
    (0xFE20, 0xFE2F), (0xFF01, 0xFFFD), (0x10300, 0x1034A), (0x1D100, 0x1D1DD), (0x1D400, 0x1D7FF),
    (0x20000, 0x2A6D6), (0x2F800, 0x2FA1D),
)  # fmt: skip
_SHARE = 400  # characters of one block at most: the Chinese ones would outnumber all others


def _block(first: int, last: int) -> list[str]:
    """Characters of a block, spread evenly, that Unicode 3.2 has; not the capital sigma."""
    known = unicodedata.ucd_3_2_0.category
    codes = range(first, last + 1, max(1, (last - first) // _SHARE))
    return [chr(c) for c in codes if known(chr(c)) not in ("Cn", "Cs") and c != 0x3A3]


CHARACTERS = tuple(character for block in BLOCKS for character in _block(*block))
"""What random texts are made of. The two variants of the tokenizer treat all of them alike."""

BY_HAND = (
    "", " ", "\n\t\r ", "A man riding a wave on top of a surfboard.", "Two snowboarders!",
    "THE DOG'S BALL", "don't isn't I'm you've we're it's ' a '", "hi . there ! ? ,",
    "a [SEP] b", "a [sep] b", "a[SEP]b", "[[SEP]]", "[SEP", "[CLS][MASK]x[PAD][UNK]", "[ SEP ]",
    "[SE[SEP]P]", "É[CLS]é", "##a # #s", "[CLS]##s", "##", "café CAFÉ", "cafe\u0301 CAFE\u0301",
    "Über naïve résumé crème", "\u0301", "a\u0301\u0323\u0301b", "\u0323a \u0301 b",
    "ΑΣ ΣΑΣ Σ ΑΣ. ΑΣ'Α ΑΣ\u0301 ΑΣ\u0301Α ΑΣ\0Α", "İ I ı i\u0307", "ß ẞ ﬁ Æ", "\u212a\u212b\u2126",
    "\u037e\u0387\u1fef", "\u2260\u226e", "日本語", "a日b", "私は 日本人。", "カタナ ガ か\u3099",
    "한국 각 \u1112\u1161\u11ab", "\uf900\U0002f800\U00020000", "a\u00a0b\u3000c\u2003d\u2000e",
    "a\u2028b\u2029c", "a\x0bb\x0cc\x85d\x1ce", "a\0b\ufffdc\x7fd", "a\u00ad-\u200bb\u200dc\ufeffd",
    "\ud800", "a\udc00b\ud83d", "a\ue000b", "a\uffffb\U0010ffffc", "👩\u200d👩\u200d👧 😀 ♥",
    "☀\ufe0f", "\u202eשלום\u202c سلام", "a" * 100, "a" * 101, "é" * 100, "e\u0301" * 101,
    "日" * 101, "!" * 101, "a " * 60, "s" * 99 + "日" + "s" * 101, "½ ² ３ １",
    "$1,000.00 (10%) #2 @a a_b x=y", "…–—“”‘’¿", "a\\b|c~d`e^f",
    "\U0002b81f\U0002b820\U0002b91f\U0002b920",
)  # fmt: skip


def _caption(random: Random) -> str:
    nouns = (
        "man",
        "woman",
        "dogs",
        "Cats",
        "snowboarder",
        "surfer",
        "umbrella",
        "BICYCLE",
        "sheep",
    )
    verbs = ("riding", "is holding", "isn't near", "stands under", "looks at", "'s playing with")
    ends = (".", "!", " .", "", ", and it's red.", "? I don't know...", " (2021)", "; they've 2.")
    noun, other = random.choice(nouns), random.choice(nouns)
    article, size = random.choice(("A", "the", "Two", "20")), random.choice(("", "small ", "Old "))
    return f"{article} {size}{noun} {random.choice(verbs)} a {other}{random.choice(ends)}"


def _unicode(random: Random, characters: Sequence[str]) -> str:
    # with letters that the vocabulary has, or every word of it would be unknown
    sets = (characters, "as n")
    return "".join(random.choice(random.choice(sets)) for _ in range(random.randrange(1, 24)))


def _punctuation(random: Random) -> str:
    parts = (*string.punctuation, " ", " ", "a", "cat", "’", "—", "n't", " 's", " 've")
    return "".join(random.choices(parts, k=random.randrange(1, 16)))


def _accents(random: Random) -> str:
    letters = random.choices("aceinouyACEINOUY sz", k=random.randrange(1, 16))
    marks = random.choices(("", "", "\u0301", "\u0308", "\u0323\u0302", "\u0327"), k=len(letters))
    text = "".join(letter + mark for letter, mark in zip(letters, marks, strict=True))
    return unicodedata.normalize(random.choice(("NFC", "NFD")), text)


def _chinese(random: Random) -> str:
    return "".join(random.choices("日本語中国人山川鑫龍a 1。、「」あタ", k=random.randrange(1, 16)))


def _symbols(random: Random) -> str:
    parts = ("😀", "👩\u200d👧", "☀\ufe0f", "♥", "🇩🇪", "👍🏽", "→", "€", "a", "cat", " ", "10")
    return "".join(random.choices(parts, k=random.randrange(1, 10)))


def _control(random: Random) -> str:
    parts = (
        "\0",
        "\x07",
        "\x1b",
        "\t",
        "\n",
        "\r\n",
        "\x85",
        "\u200b",
        "\u00a0",
        "\ufffd",
        "\ufeff",
    )
    return "".join(random.choices((*parts, *"abs ", "dog"), k=random.randrange(1, 16)))


def _long(random: Random) -> str:
    length = random.choice((50, 99, 100, 101, 120))
    return _caption(random) + " " + "".join(random.choices("aeinsst", k=length)) + " s"


def _special(random: Random) -> str:
    parts = ("[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]", "[sep]", "[SEP", "CLS]", "[", "]", "##s")
    return "".join(random.choices((*parts, "a", "dogs", " ", " ", "é"), k=random.randrange(1, 10)))


def texts(count: int, seed: int, characters: Sequence[str] = CHARACTERS) -> list[str]:
    """So many texts of nine kinds in turn, from captions to noise made of `characters`."""
    random = Random(seed)
    kinds: tuple[Callable[[Random], str], ...]
    kinds = (_caption, _punctuation, _accents, _chinese, _symbols, _control, _long, _special)
    made = []
    for index in range(count):
        kind = index % (len(kinds) + 1)
        made.append(_unicode(random, characters) if kind == len(kinds) else kinds[kind](random))
    return made


def id_lists(count: int, seed: int) -> list[list[int]]:
    """Ids in an order that no text has; half of them of punctuation, which decoding is about."""
    random = Random(seed)
    tight = [VOCABULARY.index(token) for token in [*".?!,'", "s", "ve", "re", "m", "t", "##s"]]
    return [
        [random.choice(random.choice((tight, range(len(VOCABULARY))))) for _ in range(length)]
        for length in random.choices(range(1, 24), k=count)
    ]


def variants(vocabulary: Sequence[str], folder: Path) -> dict[str, Any]:
    """Both tokenizers of transformers, by name; the folder is for the vocabulary file."""
    path = folder / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    return {"python": BertTokenizerLegacy(str(path)), "fast": BertTokenizer(str(path))}


def answer(tokenizer: Any, text: str) -> dict[str, Any]:
    """What a tokenizer of transformers makes of a text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = decode(tokenizer, ids)
    return {"text": text, "tokens": tokenizer.tokenize(text), "ids": ids, "decoded": decoded}


def decode(tokenizer: Any, ids: Sequence[int], *, skip_special: bool = True) -> str:
    """Decoded as transformers 4 did when nothing else was asked for."""
    return tokenizer.decode(
        list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=True
    )


def make() -> dict[str, Any]:
    """The contents of the file, without the versions."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = variants(VOCABULARY, Path(folder))["python"]
    return {
        "vocabulary": list(VOCABULARY),
        "texts": [answer(tokenizer, text) for text in (*BY_HAND, *texts(144, SEED))],
        "id_lists": [
            {"ids": ids, "skip_special": skip, "decoded": decode(tokenizer, ids, skip_special=skip)}
            for ids, skip in zip(id_lists(40, SEED), [True, False] * 20, strict=True)
        ],
    }


if __name__ == "__main__":
    made_by = {
        "made_by": "python -m tests.references.make_tokenizer",
        "versions": {name: version(name) for name in ("transformers", "tokenizers")},
        "unicode": unicodedata.unidata_version,
    }
    lines = []
    for name, values in (made_by | make()).items():
        rows = values if name in ("texts", "id_lists") else None
        text = ",\n".join(json.dumps(row) for row in rows) if rows else json.dumps(values)
        lines.append(f'"{name}": ' + (f"[\n{text}\n]" if rows else text))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
