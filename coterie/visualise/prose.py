"""What a model wrote and what a run was configured with, as safe HTML that reads well.

Everything is escaped before anything is marked. Tags of drama become typography: the speaker in
small capitals, directions in italics. A tag that a half-trained model never closes, or closes
without opening, stays visible as the mistake that it is.
"""

import re
from html import escape

from coterie.foundation.printable import printable

_TAG = re.compile(r"<(/?)([A-Z][A-Z_]{0,23})>|(<\|[a-z_]{1,24}\|>)")
_STYLES = {"SPEAKER": "speaker", "STAGE": "stage", "ACT": "part", "SCENE": "part", "TITLE": "part"}
_YAML_LINE = re.compile(
    r"^(?P<indent>[ -]*)(?P<key>[\w.\"'/-]+:)?(?P<value>.*?)(?P<comment>(?:^|\s)#.*)?$"
)
_YAML_WORD = re.compile(
    r"(?P<string>\"[^\"]*\"|'[^']*')|(?P<key>[\w.-]+:(?=\s))"
    r"|(?P<word>(?<![\w.-])(?:true|false|null|~|-?\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.-]))",
    re.IGNORECASE,
)


def written(text: str) -> str:
    """Return a model's text as HTML: escaped, control characters replaced, tags as typography."""
    text = printable(text)
    closed = _closings(text)
    pieces: list[str] = []
    open_tags: list[tuple[int, str]] = []
    position = 0
    for match in _TAG.finditer(text):
        pieces.append(escape(text[position : match.start()]))
        position = match.end()
        shown = escape(match.group())
        start = closed.get(match.start())
        if match.group(3):
            pieces.append(f'<span class="stop">{shown}</span>')
        elif start is None:
            pieces.append(f'<span class="stray">{shown}</span>')
        elif match.group(1):
            open_tags.pop()
            pieces.append(f'<span class="tag">{shown}</span></span>')
        else:
            style = _STYLES.get(match.group(2), "tagged")
            open_tags.append((match.start(), match.group(2)))
            pieces.append(f'<span class="{style}"><span class="tag">{shown}</span>')
    assert not open_tags, "only tags with a partner are opened"
    return "".join(pieces) + escape(text[position:])


def has_tags(text: str) -> bool:
    """Return whether a text has well-formed tags that the page hides behind typography."""
    return bool(_closings(text))


def _closings(text: str) -> dict[int, int]:
    """Return the positions of tags that have a partner and nest well, each with its partner's."""
    partners: dict[int, int] = {}
    waiting: list[tuple[str, int]] = []
    for match in _TAG.finditer(text):
        if match.group(3):
            continue
        if not match.group(1):
            waiting.append((match.group(2), match.start()))
            continue
        depth = next((d for d in range(len(waiting) - 1, -1, -1)
                      if waiting[d][0] == match.group(2)), None)  # fmt: skip
        if depth is None:
            continue
        partners[waiting[depth][1]] = match.start()
        partners[match.start()] = waiting[depth][1]
        del waiting[depth:]  # whatever opened since and did not close is stray
    return partners


def settings(yaml_text: str) -> str:
    """Return YAML as HTML with keys, plain values and comments told apart by colour."""
    return "\n".join(_settings_line(line) for line in printable(yaml_text).splitlines())


def _settings_line(line: str) -> str:
    match = _YAML_LINE.match(line)
    assert match is not None, "every part of the pattern may be empty"
    parts = [escape(match["indent"])]
    if match["key"]:
        parts.append(f'<span class="key">{escape(match["key"])}</span>')
    value, position = match["value"], 0
    for word in _YAML_WORD.finditer(value):
        parts.append(escape(value[position : word.start()]))
        kind = {"string": "string", "key": "key", "word": "number"}[word.lastgroup or "word"]
        parts.append(f'<span class="{kind}">{escape(word.group())}</span>')
        position = word.end()
    parts.append(escape(value[position:]))
    if match["comment"]:
        parts.append(f'<span class="comment">{escape(match["comment"])}</span>')
    return "".join(parts)
