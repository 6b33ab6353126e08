"""Where a text may be cut in two without changing its tokens, if rules like GPT-2's split words.

Those rules (GPT-2's own, cl100k_base's, o200k_base's) read a text from left to right and end a
word, whatever else stands around it,

- after a single line break between a visible character and a letter,
- before a blank that follows a visible character: blanks only ever begin words,
- before any other white space that follows a letter or digit: line breaks may end words of signs,
- between a letter and a digit, and between a letter and a punctuation mark other than the
  apostrophe, which may join the letters before it to those after it.

So both sides, encoded one after the other, give the tokens of the whole. A special token that
reaches across a place forbids it.
"""

import re
from collections.abc import Iterable

CUT_REACH = 1 << 16  # how far back from the wished place a cut is searched, in characters

# Only signs whose class every version of Unicode agrees about, and for the same reason only letters
# of the basic plane.
_SIGNS = r"[!-&(-/:-@\[-`{-~、。，．：；！？「」『』（）《》【】…—]"
_BETWEEN = re.compile(
    rf"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[^\W\d_])(?={_SIGNS})|(?<=[^\W_])(?=\s)"
)
_BASIC_PLANE = "\U00010000"


def last_cut(text: str, near: int, tokens: Iterable[str] = ()) -> int | None:
    """Return the last place up to `near` where a text may be cut, at most `CUT_REACH` before it.

    Args:
        near: the wished place.
        tokens: special tokens, none of which may be cut in two.

    Returns:
        The place, or `None` where none is known.
    """
    low, near = max(near - CUT_REACH, 1), min(near, len(text) - 1)
    place = text.rfind("\n", low, near)
    while place > 0:
        if not text[place - 1].isspace() and text[place + 1 : place + 2].isalpha():
            return place + 1  # no special token holds a line break
        place = text.rfind("\n", low, place)
    tokens = tuple(tokens)
    place = text.rfind(" ", low, near + 1)
    while place > 0:
        if not text[place - 1].isspace() and not crosses_any(text, place, tokens):
            return place
        place = text.rfind(" ", low, place)
    between = [match.start() for match in _BETWEEN.finditer(text, low, near + 1)]
    for place in reversed(between):
        if text[place - 1] < _BASIC_PLANE and not crosses_any(text, place, tokens):
            return place
    return None


def last_place_outside(text: str, near: int, tokens: Iterable[str]) -> int | None:
    """Return the last place up to `near` where no special token reaches from one side across."""
    tokens = tuple(tokens)
    for place in range(near, max(near - CUT_REACH, 0), -1):
        if not crosses_any(text, place, tokens):
            return place
    return None


def crosses_any(text: str, place: int, tokens: Iterable[str]) -> bool:
    """Whether a special token stands, or may yet stand, across a place of a text."""
    return any(_crosses(text, place, token) for token in tokens)


def _crosses(text: str, place: int, token: str) -> bool:
    for begun in range(1, len(token)):
        start = place - begun
        if start >= 0 and token.startswith(text[start : start + len(token)]):
            return True
    return False
