"""One plain spelling for quotes, dashes and accents, so that a character tokenizer stays small."""

from __future__ import annotations

import re
import unicodedata

_SAME = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "´": "'", "`": "'",
        "“": '"', "”": '"', "„": '"', "‟": '"', "″": '"', "«": '"', "»": '"',
        "‐": "-", "‑": "-", "‒": "-", "−": "-", "…": "...", "•": "*",
        "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ß": "ss", "ø": "o", "Ø": "O",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\t": " ",
        "\u00ad": None, "\u200b": None, "\ufeff": None,
    }
)  # fmt: skip
LEFT_OVER = re.compile(r"[\\_*#\[\]<>{}|~^=$@+/]")
"""Marks of an editor or a program that words should not hold."""

LOST = "..."
"""Stands for words that the source marks as lost: empty brackets, a row of asterisks."""

_LOOSE_ACCENT = re.compile(r"(?<=[A-Za-z])[\u0300-\u036f]+")
_DASH = re.compile(r" *[–—―]+ *")
_ET_CETERA = re.compile(r"& ?c(?:\.|(?![\w']))(?!\.)")
_LOOSE_MARK = re.compile(r"(?<=\w) +(?=[,;:?!](?:\s|$))")


def normalise(text: str) -> str:
    """Return `text` with straight quotes, `--` for dashes, `...` for an ellipsis and no accents.

    Line breaks stay as they are (with `\\r\\n` read as one); characters without a plain equivalent,
    such as Greek letters, stay as well, so nothing is ever lost silently.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _DASH.sub("--", text.translate(_SAME))
    if text.isascii():
        return text
    text = "".join(map(_plain_letter, text))
    return _LOOSE_ACCENT.sub("", text)


def _plain_letter(letter: str) -> str:
    """Return a letter without its accents where what is left is plain, else the letter."""
    if letter.isascii():
        return letter
    parts = unicodedata.normalize("NFKD", letter)
    base = "".join(part for part in parts if not unicodedata.combining(part)).translate(_SAME)
    return base if base and base.isascii() else letter


def tidy_line(text: str) -> str:
    """Return one line normalised, with single spaces, `&c.` in one piece and no loose marks."""
    text = " ".join(normalise(text).split())
    text = _ET_CETERA.sub("&c.", text)
    return _LOOSE_MARK.sub("", text)


def letters(text: str) -> str:
    """Return only the letters and digits of a text, in one case, for comparing what two hold."""
    return "".join(filter(str.isalnum, normalise(text).casefold()))
