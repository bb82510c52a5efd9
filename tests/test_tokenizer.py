"""Tokens, ids and decoded texts are those of BERT's uncased tokenizer, for any text."""

from __future__ import annotations

import copy
import json
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit import tokenizer as tokenizer_module
from minivit.data.scenes.captions import CAPTION_WORDS
from minivit.tokenizer import (
    BadVocabularyError,
    Tokenizer,
    WordLevel,
    WordPiece,
    tokenizer_from_dict,
)

STORED = json.loads((Path(__file__).parent / "references" / "tokenizer.json").read_text("utf-8"))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT = WordPiece(STORED["vocabulary"])
SCENES = WordLevel(CAPTION_WORDS)


def small(*tokens: str) -> WordPiece:
    return WordPiece([*SPECIAL, *tokens])


def test_what_a_tokenizer_is() -> None:
    """Words that it knows have numbers, the others are made of pieces, and it all comes back."""
    tokenizer = small("a", "man", "snow", "##man", ".")  # numbers 5 to 9, after five special ones
    assert tokenizer.tokenize("A snowman.") == ["a", "snow", "##man", "."]
    assert tokenizer.encode("A snowman.") == [5, 7, 8, 9]
    assert tokenizer.decode([5, 7, 8, 9]) == "a snowman."
    assert tokenizer.words(["a", "snow", "##man", "."]) == [[0], [1, 2], [3]]
    assert tokenizer.tokenize("a snowdog") == ["a", "[UNK]"]  # no piece for "dog"
    whole = WordLevel(["a", "snowman"])  # the other kind: words as they are, or unknown
    assert whole.tokenize("A snowman.") == ["a", "snowman", "<unknown>"]


# --- WordPiece -------------------------------------------------------------------------------


def test_stored_tokens_ids_and_texts_are_met() -> None:
    assert len(STORED["texts"]) > 200
    for case in STORED["texts"]:
        assert BERT.tokenize(case["text"]) == case["tokens"], case["text"]
        assert BERT.encode(case["text"]) == case["ids"], case["text"]
        assert BERT.decode(case["ids"]) == case["decoded"], case["text"]


def test_stored_texts_of_ids_in_any_order_are_met() -> None:
    assert len(STORED["id_lists"]) == 40
    for case in STORED["id_lists"]:
        decoded = BERT.decode(case["ids"], skip_special=case["skip_special"])
        assert decoded == case["decoded"], case["ids"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("unaffable", "un ##aff ##able"),  # the example of BERT's own code
        ("unaffables", "[UNK]"),  # no ##s: not one piece of the word is kept
        ("unun", "[UNK]"),  # "un" only begins a word
        ("able", "[UNK]"),  # "##able" never does
        ("UNAFFABLE\tcafe\u0301\nCAFÉ", "un ##aff ##able cafe cafe"),
        ("un." + "!" * 2, "un . ! !"),
        ("caf\0e un\u200baff\ufffdable \x07", "cafe un ##aff ##able"),
        ("日un日", "日 un 日"),
        ("un[SEP]un [SEP", "un [SEP] un [ [UNK]"),
        ("", ""),
    ],
)
def test_tokens_worked_out_by_hand(text: str, tokens: str) -> None:
    pieces = ("un", "##aff", "##able", "##a", "##ff", "a", "cafe", "日", ".", "!", "[")
    assert small(*pieces).tokenize(text) == tokens.split()


def test_a_word_of_more_than_100_characters_is_unknown() -> None:
    tokenizer = small("a", "##a", ".")
    assert tokenizer.tokenize("a" * 100) == ["a", *["##a"] * 99]
    assert tokenizer.tokenize("a" * 101) == ["[UNK]"]
    assert tokenizer.tokenize("á" * 100 + ".") == ["a", *["##a"] * 99, "."]  # without the accents


def test_only_a_special_token_that_is_written_exactly_counts() -> None:
    tokenizer = small("[", "]", "sep", "mask")
    apart = ["[", "sep", "]"]
    for text in ("[sep]", "[Sep]", "[SE\0P]", "[ SEP ]", "[SE\u0301P]"):
        assert tokenizer.tokenize(text) == apart, text
    assert tokenizer.tokenize("[MAS\u212a]") == ["[", "mask", "]"]  # the sign for kelvin
    assert tokenizer.tokenize("[[SEP]]") == ["[", "[SEP]", "]"]


def test_special_tokens_are_found_by_name() -> None:
    tokenizer = WordPiece(["x", "[MASK]", "[SEP]", "y", "[PAD]", "[UNK]", "##x", "[CLS]"])
    ids = (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.unknown_id)
    assert ids == (4, 7, 2, 5) and len(tokenizer) == 8
    assert tokenizer.encode("[CLS] xx z [SEP]") == [7, 0, 6, 5, 2]
    assert tokenizer.decode([7, 0, 6, 5, 1, 3, 2, 4]) == "xx y"
    text = tokenizer.decode([7, 0, 6, 5, 1, 3, 2, 4], skip_special=False)
    assert text == "[CLS] xx [UNK] [MASK] y [SEP] [PAD]"


def test_a_vocabulary_without_a_mask_is_enough() -> None:
    """Nothing here masks words: [MASK] is special where it is there, and text where it is not."""
    tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog"])
    assert tokenizer.special_tokens == ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    assert tokenizer.tokenize("a [MASK]") == ["a", "[UNK]", "[UNK]", "[UNK]"]
    assert tokenizer_from_dict(tokenizer.to_dict()).encode("a dog") == [4, 5]
    assert "[MASK]" in WordPiece([*tokenizer.vocabulary, "[MASK]"]).special_tokens


@pytest.mark.parametrize("index", [-1, 8])
def test_an_id_that_is_not_in_the_vocabulary_is_an_error(index: int) -> None:
    with pytest.raises(ValueError, match=rf"token id: found {index}, expected 0 to 7"):
        small("a", "b", "c").decode([5, index])


def test_words_join_their_pieces() -> None:
    tokens = ["two", "snow", "##board", "##ers", ".", "[UNK]", "a"]
    assert BERT.words(tokens) == [[0], [1, 2, 3], [4], [5], [6]]
    assert BERT.words(["##ers", "##s", "a"]) == [[0, 1], [2]]
    assert BERT.words([]) == []


class Counted(dict[str, None]):
    """A set of strings that counts how often it is asked."""

    lookups = 0

    def __contains__(self, key: object) -> bool:
        self.lookups += 1
        return super().__contains__(key)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2_000,
        "\u0301" * 2_000,
        "a" + "\u0301\u0323" * 1_000,  # in the wrong order, which NFD sorts one by one
        "Σ\u0301" * 1_000,
        "日" * 2_000,
        "[" * 2_000,
        "[SEP]" * 400,
        ("an" * 48 + " ") * 20,
        "\ud800" * 2_000,
        "שלום " * 400,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_work_grows_with_the_length_only(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No character is looked up more often than the longest piece is long, nor decomposed twice."""
    decomposed: list[str] = []

    def normalize(form: str, characters: str) -> str:
        decomposed.append(characters)
        return unicodedata.normalize(form, characters)

    monkeypatch.setattr(tokenizer_module, "normalize", normalize)
    monkeypatch.setattr(
        tokenizer_module, "_PLAIN", type(tokenizer_module._PLAIN)(tokenizer_module._plain)
    )
    # like BERT's own vocabulary: pieces of up to 18 characters
    for tokenizer in (small(*"an日[", "##a", "##n", "x" * 18, "##" + "x" * 18), WordLevel(["a"])):
        tables = {"_ids": Counted.fromkeys(tokenizer.vocabulary)}
        if isinstance(tokenizer, WordPiece):
            tables["_continuing"] = Counted.fromkeys(tokenizer._continuing)
        for name, table in tables.items():
            monkeypatch.setattr(tokenizer, name, table)
        tokenizer.tokenize(text)
        assert sum(table.lookups for table in tables.values()) <= 20 * len(text)
    assert all(len(characters) == 1 for characters in decomposed)
    assert len(decomposed) == len(set(decomposed))


# --- files -----------------------------------------------------------------------------------


def test_a_file_holds_one_token_a_line(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    tokens = [*SPECIAL, "a", "##a\u2028", "é", "日"]  # U+2028 ends no line of a file
    contents = "\n".join(tokens)
    for text in (contents, contents + "\n", contents + "\n\n", "\ufeff" + contents + "\n"):
        path.write_bytes(text.encode())
        assert WordPiece.from_file(path).vocabulary == tuple(tokens)
        path.write_bytes(text.replace("\n", "\r\n").encode())
        assert WordPiece.from_file(str(path)).vocabulary == tuple(tokens)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "the vocabulary is empty"),
        (b"\n\n", "the vocabulary is empty"),
        (b"[PAD]\n[UNK]\n[CLS]\nthe\n", r"\[SEP\] missing among 4 tokens"),
        (b"\n".join(map(str.encode, SPECIAL)) + b"\na\nb\nb\na\nb", r"'a' .*repeated tokens: 2"),
        (b"\n".join(map(str.encode, SPECIAL)) + b"\n\na", "token 5 is ''"),
        (b"[PAD]\n\xff\xfe", r"not UTF-8 text \(byte 6\)"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, contents: bytes | None, message: str
) -> None:
    path = tmp_path / "vocab.txt"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(BadVocabularyError, match=message) as caught:
        WordPiece.from_file(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, "", "zero\0byte", "two\nlines"):
        with pytest.raises(BadVocabularyError) as caught:
            WordPiece.from_file(path)
        assert len(str(caught.value).splitlines()) == 1


# --- whole words -----------------------------------------------------------------------------


def test_scene_captions_survive_the_way_there_and_back() -> None:
    assert SCENES.vocabulary == ("<pad>", "<start>", "<end>", "<unknown>", *CAPTION_WORDS)
    ids = (SCENES.pad_id, SCENES.start_id, SCENES.end_id, SCENES.unknown_id)
    assert ids == (0, 1, 2, 3)
    caption = " ".join(CAPTION_WORDS)
    assert SCENES.encode(caption) == list(range(4, len(SCENES)))
    assert SCENES.decode(SCENES.encode(caption)) == caption
    assert SCENES.words(caption.split()) == [[i] for i in range(len(CAPTION_WORDS))]


def test_whole_words_are_lower_case_with_punctuation_apart() -> None:
    tokenizer = WordLevel(
        ["!", "'", ",", "-", ".", "a", "café", "circle", "it", "red", "s", "über"]
    )
    assert " ".join(tokenizer.tokenize("It's a café, über-red!")) == "it ' s a café , über - red !"
    assert tokenizer.tokenize("IT'S a blue circle<end>") == (
        ["it", "'", "s", "a", "<unknown>", "circle", "<end>"]
    )
    assert tokenizer.decode(tokenizer.encode("It's a\nCircle .<end>")) == "it's a circle."


@pytest.mark.parametrize("word", ["Red", "dark red", "it's", "<start>", "", " ", "re\0d", 7])
def test_a_word_that_no_text_can_contain_is_refused(word: str) -> None:
    with pytest.raises(BadVocabularyError, match="expected"):
        WordLevel(["a", word])


def test_no_words_are_refused() -> None:
    for words in ([], WordLevel.required_tokens):
        with pytest.raises(BadVocabularyError, match="no words"):
            WordLevel(words)


# --- dictionaries ----------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [BERT, SCENES], ids=["wordpiece", "words"])
def test_a_dictionary_brings_it_back(tokenizer: Tokenizer) -> None:
    values = json.loads(json.dumps(tokenizer.to_dict()))
    assert values == tokenizer.to_dict() and values["kind"] == tokenizer.kind
    text = "A large red circle, snowboarders!"
    for again in (
        tokenizer_from_dict(values),
        copy.deepcopy(tokenizer),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert type(again) is type(tokenizer)
        assert again.vocabulary == tokenizer.vocabulary
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "bpe"}, r"kind: found 'bpe', expected wordpiece \| words"),
        ({"kind": ["words"]}, r"kind: found \['words'\], expected wordpiece \| words"),
        ({"vocabulary": "abc"}, "vocabulary: found str, expected a list"),
        ({"vocabulary": []}, "the vocabulary is empty"),
        ({"vocabulary": ["a"]}, r"\[PAD\], \[CLS\], \[SEP\], \[UNK\] missing among 1"),
        ({"vocabulary": [*SPECIAL, 3]}, "token 5 is 3"),
        ({"vocabulary": [*SPECIAL, "a\nb", "a\nb"]}, r"'a\\nb' stands"),
        ({"lower": True}, r"fields \['kind', 'lower', 'vocabulary'\], expected \['kind', 'voc"),
    ],
)
def test_a_bad_dictionary_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadVocabularyError, match=message) as caught:
        tokenizer_from_dict(BERT.to_dict() | changes)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(BadVocabularyError, match=r"fields \['kind'\]"):
        tokenizer_from_dict({"kind": "words"})


# --- any text --------------------------------------------------------------------------------

# every code point, lone surrogates too, and what has a meaning here
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters()),
        st.text("an.,'# \0\u0301Σ日é\ud800"),
        st.sampled_from([*BERT.vocabulary, *SCENES.vocabulary]),
    )
).map("".join)


@given(TEXTS)
def test_any_text_has_tokens_of_the_vocabulary(text: str) -> None:
    for tokenizer in (BERT, SCENES):
        tokens, ids = tokenizer.tokenize(text), tokenizer.encode(text)
        assert [tokenizer.vocabulary[index] for index in ids] == tokens
        assert all(0 <= index < len(tokenizer) for index in ids)


@given(TEXTS)
def test_a_decoded_text_has_the_same_tokens_again(text: str) -> None:
    for tokenizer in (BERT, SCENES):
        ids = tokenizer.encode(text)
        assert tokenizer.encode(tokenizer.decode(ids, skip_special=False)) == ids
        kept = [i for i in ids if tokenizer.vocabulary[i] not in tokenizer.special_tokens]
        assert tokenizer.encode(tokenizer.decode(ids)) == kept


@given(TEXTS)
def test_words_are_runs_of_tokens_that_together_are_all(text: str) -> None:
    tokens = BERT.tokenize(text)
    groups = BERT.words(tokens)
    assert [index for group in groups for index in group] == list(range(len(tokens)))
    for first, *others in groups:
        assert not tokens[first].startswith("##")
        assert all(tokens[index].startswith("##") for index in others)


@given(st.lists(TEXTS, min_size=1))
def test_every_word_of_a_text_can_be_in_a_vocabulary(texts: list[str]) -> None:
    tokenizer = WordLevel(sorted({word for text in [*texts, "a"] for word in WordLevel._cut(text)}))
    plain = [text for text in texts if not any(mark in text for mark in tokenizer.special_tokens)]
    assert all(tokenizer.unknown_id not in tokenizer.encode(text) for text in plain)


# --- side by side with transformers ----------------------------------------------------------

# planes 0 to 3 and the first 4,096 of plane 14; there is nothing yet in the others
EVERY_CHARACTER = tuple(map(chr, (*range(0x40000), *range(0xE0000, 0xE1000))))


@pytest.mark.parity
def test_stored_outputs_are_what_their_script_makes() -> None:
    pytest.importorskip("transformers")
    from tests.references import make_tokenizer

    made = json.loads(json.dumps(make_tokenizer.make()))
    assert {name: STORED[name] for name in made} == made


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["python", "fast"])
def test_equal_to_transformers(tmp_path: Path, variant: str) -> None:
    pytest.importorskip("transformers")
    from tests.references import make_tokenizer

    theirs = make_tokenizer.variants(BERT.vocabulary, tmp_path)[variant]
    assert theirs.is_fast == (variant == "fast")
    characters = make_tokenizer.CHARACTERS
    if variant == "python":  # the fast variant has other Unicode tables and refuses surrogates
        characters = EVERY_CHARACTER
    for text in make_tokenizer.texts(3_000, 7, characters):
        expected = make_tokenizer.answer(theirs, text)
        assert BERT.tokenize(text) == expected["tokens"], repr(text)
        assert BERT.encode(text) == expected["ids"], repr(text)
        assert BERT.decode(expected["ids"]) == expected["decoded"], repr(text)
    for ids in make_tokenizer.id_lists(500, 7):
        for skip in (True, False):
            expected = make_tokenizer.decode(theirs, ids, skip_special=skip)
            assert BERT.decode(ids, skip_special=skip) == expected, ids


@pytest.mark.parity
def test_every_character_is_treated_as_by_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.references import make_tokenizer

    theirs = make_tokenizer.variants(BERT.vocabulary, tmp_path)
    cut, pieces = theirs["python"].basic_tokenizer, theirs["python"].wordpiece_tokenizer
    for character in EVERY_CHARACTER:
        text = f"a{character}s {character}"
        expected = [token for word in cut.tokenize(text) for token in pieces.tokenize(word)]
        assert BERT.tokenize(text) == expected, hex(ord(character))
    common = make_tokenizer.CHARACTERS  # the fast variant has other Unicode tables
    kinds = {unicodedata.category(character) for character in common}
    assert len(common) > 5_000 and {"Ll", "Lo", "Mn", "Mc", "Nd", "Po", "Sm", "Zs", "Cf"} <= kinds
    for character in common:
        text = f"a{character}s {character}"
        assert BERT.tokenize(text) == theirs["fast"].tokenize(text), hex(ord(character))
