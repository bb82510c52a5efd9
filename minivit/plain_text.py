"""Words from outside, as they may be shown and as they may stand in a table.

A class folder, a photo, a tensor or a label can be called anything, and whoever made it may be a
stranger. Two things must not happen: that a name steers a terminal (ESC, BEL), breaks a line or
turns the order of letters round; and that a table program computes a name that begins as a formula
(https://owasp.org/www-community/attacks/CSV_Injection). Whatever prints a line or writes a CSV file
of other people's words goes through here.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format, half a pair, line and paragraph ends
_JOINERS = "\u200c\u200d"  # letters of Persian and pictures of families need them
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
# Controls but tab, line feed and carriage return; and how `cell` writes those and a backslash.
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ESCAPE = re.compile(r"\\x([01][0-9a-f]|7f|[89][0-9a-f]|5c)")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def visible(text: str) -> str:
    r"""A text in one line whose every character shows: ESC as \x1b, a line feed as \n.

    Letters of all scripts and all kinds of spaces stay as they are, so that most names do. A byte
    of a file's name that is no UTF-8 is shown as \udcXX.
    """
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii") if _is_hidden(letter) else letter
        for letter in text
    )


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _HIDDEN and letter not in _JOINERS


# ---- tables --------------------------------------------------------------------------------------


def cell(text: str) -> str:
    r"""A text as a cell of a CSV file, which neither a table program nor a terminal obeys.

    One that begins with =, +, -, @, a tab or a line's end gets an apostrophe in front, by which
    such programs know text. A number with a sign is no formula and stays. ESC is written \x1b, and
    so are the other controls but tabs and line ends, which CSV has quotes for.

    `from_cell` is the inverse. For that, what looks like the work of this function gets it once
    more: an apostrophe before such a beginning, and \x5c for the backslash of a written \x1b.
    """
    text = _ESCAPE.sub(lambda match: rf"\x5c{match[0][1:]}", text)
    text = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(text: str) -> str:
    """The text that `cell` wrote; another text is its own."""
    text = text[1:] if text[:1] == "'" and _FORMULA.match(text) else text
    return _ESCAPE.sub(lambda match: chr(int(match[0][2:], 16)), text)
