"""Take the publisher's wrapping off a Project Gutenberg text, keeping account of what went.

Three wrappings are known: the markers of texts since 2001 (`*** START OF ... ***`), the small
print of the 1990s (`*END*THE SMALL PRINT! ...*END*`) and the notice inside the World Library
edition (`<<THIS ELECTRONIC VERSION ... >>`), which returns after every few scenes.
"""

from __future__ import annotations

import re

_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*\*\*[^\n]*\n", re.M | re.S
)
_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)",
    re.M | re.I,
)
_SMALL_PRINT = re.compile(r"^\*END\*? ?THE SMALL PRINT!.*?\*END\*[^\n]*\n", re.M | re.S)
_NOTICE = re.compile(r"<<\s*THIS ELECTRONIC VERSION.*?>>[^\n]*\n?", re.S)


def strip_licence(text: str) -> tuple[str, list[str]]:
    """Return the text without its wrapping, and every piece that was taken off."""
    removed: list[str] = []
    for start in (_START, _SMALL_PRINT):
        if found := start.search(text):
            removed.append(text[: found.end()])
            text = text[found.end() :]
    if found := _END.search(text):
        removed.append(text[found.start() :])
        text = text[: found.start()]
    removed += _NOTICE.findall(text)
    return _NOTICE.sub("", text), removed
