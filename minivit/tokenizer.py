"""From a caption to the numbers that a decoder reads, and back: WordPiece, or whole words.

A text is cleaned, lower-cased and cut at spaces, around punctuation and around Chinese characters;
its accents are dropped. WordPiece (Wu et al. 2016, arXiv:1609.08144; BERT: Devlin et al. 2018,
arXiv:1810.04805) then cuts a word into the longest pieces that the vocabulary has, from the left::

    "Two snowboarders!"  ->  two snow ##board ##ers !         (## continues the word before it)

Tokens and ids are those of the pure-Python `BertTokenizer(do_lower_case=True)` in transformers,
which CATR used, and for English those of Google's code. Where the two and transformers' fast
variant differ:

* Special tokens in a text stay whole when they are written exactly: "[SEP]" is one token, "[sep]"
  and "[SE\\0P]" are three. So does the fast variant; the pure-Python one looks again after cleaning
  and finds the last one too; Google's code splits all of them.
* Characters of any category C (control, format, private use, unassigned, lone surrogates) are
  removed. Google's code keeps the last three; the fast variant keeps the unassigned ones.
* A word of more than 100 characters is unknown; Google's code cuts words of up to 200.
* A capital sigma at the end of a word becomes "ς"; the fast variant makes it "σ".
* U+2B820..2B91F are Chinese; the fast variant begins at U+2B920.
* What is an accent or punctuation is what this Python's `unicodedata` says. The fast variant has
  tables of Unicode 8: the two differ on some 500 marks that were added or changed since.

This is the last file of the captioner's reading path.
"""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar
from unicodedata import category, normalize

from minivit.files import not_a_file
from minivit.plain_text import visible

_LONGEST_WORD = 100  # characters, without accents
_CHINESE = (  # first and last code point of each block, as in Google's code
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_TIGHT = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")  # in this order


class BadVocabularyError(ValueError):
    """A vocabulary that cannot be used; the message is one line: what was found, what to do."""


class _Rewrite(dict[int, str]):
    """A table for `str.translate` that applies its rule once to each character it meets."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def _clean(character: str) -> str:
    """Whitespace -> a space, invisible characters and U+FFFD -> nothing, Chinese -> spaced out."""
    kind = category(character)
    if character in "\t\n\r" or kind[0] == "Z":
        return " "
    if character == "\ufffd" or kind[0] == "C":
        return ""
    chinese = any(first <= ord(character) <= last for first, last in _CHINESE)
    return f" {character} " if chinese else character


def _apart(character: str) -> str:
    """Spaces around punctuation; in ASCII that is all that is no letter, digit or space."""
    symbol = character in string.punctuation or category(character)[0] == "P"
    return f" {character} " if symbol else character


def _plain(character: str) -> str:
    """The same, without accents. One by one: NFD of a long run of accents takes quadratic time."""
    return "".join(_apart(part) for part in normalize("NFD", character) if category(part) != "Mn")


_CLEAN, _APART, _PLAIN = _Rewrite(_clean), _Rewrite(_apart), _Rewrite(_plain)


class Tokenizer:
    """What both kinds have in common. A token is a string; its id is its index in `vocabulary`.

    Attributes:
        kind: Name of the class in a checkpoint.
        required_tokens: Tokens for padding, start, end and unknown words.
        optional_tokens: Tokens that stand for no text either, where the vocabulary has them.
        special_tokens: Both, as far as they are in this vocabulary.
        vocabulary: All tokens, special ones too.
        pad_id, start_id, end_id, unknown_id: Ids of the first four special tokens.
    """

    kind: ClassVar[str]
    required_tokens: ClassVar[tuple[str, ...]]
    optional_tokens: ClassVar[tuple[str, ...]] = ()

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        if not self.vocabulary:
            raise BadVocabularyError("the vocabulary is empty; expected a list of tokens")
        for index, token in enumerate(self.vocabulary):
            if not isinstance(token, str) or not token.strip():
                raise BadVocabularyError(f"token {index} is {token!r}; expected text")
        repeated = [token for token, times in Counter(self.vocabulary).items() if times > 1]
        if repeated:
            problem = f"{repeated[0][:40]!r} stands in the vocabulary more than once"
            raise BadVocabularyError(f"{problem}; repeated tokens: {len(repeated)}, expected none")
        self._ids = {token: index for index, token in enumerate(self.vocabulary)}
        if missing := [token for token in self.required_tokens if token not in self._ids]:
            problem = f"{', '.join(missing)} missing among {len(self)} tokens"
            raise BadVocabularyError(f"{problem}; expected {' '.join(self.required_tokens)}")
        optional = (token for token in self.optional_tokens if token in self._ids)
        self.special_tokens = (*self.required_tokens, *optional)
        self._special_ids = [self._ids[token] for token in self.special_tokens]
        self.pad_id, self.start_id, self.end_id, self.unknown_id = self._special_ids[:4]
        self._special = re.compile(f"({'|'.join(map(re.escape, self.special_tokens))})")

    def __len__(self) -> int:
        return len(self.vocabulary)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of any text; no start and end are added."""
        tokens: list[str] = []
        for index, part in enumerate(self._special.split(text)):
            tokens += [part] if index % 2 else self._tokenize(part)  # odd: a special token
        return tokens

    def encode(self, text: str) -> list[int]:
        """The ids of `tokenize(text)`."""
        return [self._ids[token] for token in self.tokenize(text)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Ids as a text: pieces joined, no space before . , ? ! and in contractions such as don't.

        The text is that of transformers' `decode(ids, skip_special_tokens,
        clean_up_tokenization_spaces=True)`; that clean-up was the default when CATR was written and
        is not since transformers 5. The unknown token is special too: it is left out. CATR skips
        special tokens and then capitalises the text, which is left to the caller.

        Raises:
            ValueError: An id that is not in the vocabulary.
        """
        tokens = []
        for index in ids:
            if not 0 <= index < len(self):
                raise ValueError(f"token id: found {index}, expected 0 to {len(self) - 1}")
            if not (skip_special and index in self._special_ids):
                tokens.append(self.vocabulary[index])
        text = " ".join(tokens).replace(" ##", "")
        for spaced in _TIGHT:
            text = text.replace(spaced, spaced.strip())
        return text

    def words(self, tokens: Sequence[str]) -> list[list[int]]:
        """Indices of tokens, one list for each word: ["snow", "##man", "."] -> [[0, 1], [2]].

        A token with ## continues whatever stands before it; as the first one it begins a word.
        """
        groups: list[list[int]] = []
        for index, token in enumerate(tokens):
            if groups and token.startswith("##"):
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON knows it; `tokenizer_from_dict` is the inverse."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary)}

    def _tokenize(self, text: str) -> list[str]:
        """The tokens of a text that holds no special token."""
        raise NotImplementedError


class WordPiece(Tokenizer):
    """BERT's uncased tokenizer; [PAD] [CLS] [SEP] [UNK] stand anywhere in its vocabulary.

    [MASK] is special too where the vocabulary has it; nothing here needs it.

    Raises:
        BadVocabularyError: One of these is missing, or a token is there twice or is empty.
    """

    kind = "wordpiece"
    required_tokens = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    optional_tokens = ("[MASK]",)

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__(vocabulary)
        self._continuing = {token[2:] for token in self.vocabulary if token.startswith("##")}
        self._longest = max(map(len, self.vocabulary))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> WordPiece:
        """Reads BERT's vocab.txt: UTF-8, one token a line, the line number less one is the id.

        Raises:
            BadVocabularyError: The file is missing, empty, not UTF-8, or a bad vocabulary.
        """
        name = os.fspath(path)
        shown = visible(name) or repr(name)
        try:
            if os.path.exists(name) and not os.path.isdir(name) and (kind := not_a_file(name)):
                raise BadVocabularyError(f"{kind}; expected a vocabulary file")
            # utf-8-sig: some editors put a mark before the first token
            with open(name, encoding="utf-8-sig") as file:
                text = file.read().rstrip("\n")
            return cls(text.split("\n") if text else ())
        except BadVocabularyError as error:
            raise BadVocabularyError(f"{shown}: {error}") from None
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 text (byte {error.start}); expected one token a line"
            raise BadVocabularyError(f"{shown}: {reason}") from error
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            reason = getattr(error, "strerror", None) or str(error)
            raise BadVocabularyError(f"{shown}: {reason}; expected a vocabulary file") from error

    def _tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for word in text.translate(_CLEAN).lower().translate(_PLAIN).split():
            tokens += self._pieces(word)
        return tokens

    def _pieces(self, word: str) -> list[str]:
        """A word cut from the left, each piece the longest that is known; else it is unknown."""
        unknown = [self.vocabulary[self.unknown_id]]
        if len(word) > _LONGEST_WORD:
            return unknown
        pieces: list[str] = []
        known: Container[str]
        start, known, mark = 0, self._ids, ""  # a word is all punctuation or has none: never ##
        while start < len(word):
            longest = min(len(word), start + self._longest)
            end = next((e for e in range(longest, start, -1) if word[start:e] in known), None)
            if end is None:
                return unknown
            pieces.append(mark + word[start:end])
            start, known, mark = end, self._continuing, "##"
        return pieces


class WordLevel(Tokenizer):
    """Whole words and punctuation marks, for a small world such as the built-in scenes.

    Lower-cased, accents kept; a word that is not in the vocabulary is unknown.
    """

    kind = "words"
    required_tokens = ("<pad>", "<start>", "<end>", "<unknown>")

    def __init__(self, words: Sequence[str]) -> None:
        """Takes the words, or a whole vocabulary that begins with the four special tokens.

        Raises:
            BadVocabularyError: No words, a word that is there twice, or one that no text contains.
        """
        number = len(self.required_tokens)
        whole = tuple(words[:number]) == self.required_tokens
        super().__init__((*([] if whole else self.required_tokens), *words))
        if len(self) == number:
            raise BadVocabularyError("there are no words; expected one or more")
        for word in self.vocabulary[number:]:
            if (cut := self._cut(word)) != [word]:
                problem = f"the word {word!r} becomes {cut} in a text"
                raise BadVocabularyError(f"{problem}; expected one lower-case word")

    @staticmethod
    def _cut(text: str) -> list[str]:
        return text.translate(_CLEAN).lower().translate(_APART).split()

    def _tokenize(self, text: str) -> list[str]:
        unknown = self.vocabulary[self.unknown_id]
        return [word if word in self._ids else unknown for word in self._cut(text)]


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described.

    Raises:
        BadVocabularyError: An unknown kind, an unknown or missing field, or a bad vocabulary.
    """
    kinds: dict[Any, Callable[[Sequence[str]], Tokenizer]]
    kinds = {"wordpiece": WordPiece, "words": WordLevel}
    if not isinstance(values, Mapping) or set(values) != {"kind", "vocabulary"}:
        fields = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        problem = f"tokenizer: found fields {fields}"
        raise BadVocabularyError(f"{problem}, expected ['kind', 'vocabulary']")
    kind, vocabulary = values["kind"], values["vocabulary"]
    if not isinstance(kind, str) or kind not in kinds:
        raise BadVocabularyError(f"tokenizer kind: found {kind!r}, expected {' | '.join(kinds)}")
    if not isinstance(vocabulary, list):
        name = type(vocabulary).__name__
        raise BadVocabularyError(f"tokenizer vocabulary: found {name}, expected a list of tokens")
    return kinds[kind](vocabulary)
