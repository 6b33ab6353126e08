"""The one gate through which foreign text reaches a terminal.

Names, samples, notes and messages may hold escape sequences that clear the screen, change a
window's title or hide what stands before them. Everything that was not written by this program is
shown through `printable`: what a terminal would obey is written as an escape instead.
"""

import unicodedata
from typing import Any

# Control characters; marks that reorder or hide a line; lone halves of surrogate pairs.
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def printable(text: Any, keep: str = "\n\t") -> str:
    r"""Return a text with all that a terminal would obey written out as `\x1b`, `\u202e`, ...

    Args:
        text: anything; it is shown as `str` shows it.
        keep: control characters that stay as they are. Where a name stands within a line, none
            should: `keep=""`.
    """
    text = str(text)
    if "\n" in keep:
        text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def _shown(character: str, keep: str) -> str:
    if character in keep or character.isprintable():
        return character
    if unicodedata.category(character) in _UNSAFE or ord(character) in _REORDERING:
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character
