"""A poem as a picture: its stresses above the syllables, its rhymes in colours and arcs, licences.

Strong syllables carry a stroke, weak ones a bow, in ochre where a light syllable was promoted or a
heavy one demoted. Letters and arcs say what the colours say, so that nothing is told by hue alone.
Type is STIX, which comes with matplotlib, so that the picture is the same everywhere.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath, text_to_path
from matplotlib.transforms import Affine2D

from coterie.foundation.errors import UserError
from coterie.foundation.files import atomic_file, explain_disk_errors
from coterie.foundation.printable import printable
from coterie.language.verse.marks import Mark, marks_of
from coterie.language.verse.metres import metre_of
from coterie.language.verse.rhyme import last_word, rhyme
from coterie.language.verse.scansion import Scan, scan
from coterie.language.verse.schemes import form_of, letters_of
from coterie.language.verse.score import stanzas

Style = Literal["normal", "italic"]
MOST = 200  # lines
_FAMILY = "STIXGeneral"
_SIZE, _PITCH, _GAP = 19.0, 47.0, 20.0  # of the words; between lines; more between stanzas
_LEFT, _TOP, _BOTTOM = 62.0, 62.0, 58.0
_TITLE = 40.0
_QUIET = ("promoted", "demoted")  # the mark itself says so


@dataclass(frozen=True)
class Theme:
    """The colours of a picture: ground, words, side remarks, hairlines, forced marks, rhymes."""

    ground: str
    ink: str
    soft: str
    hair: str
    forced: str
    rhymes: tuple[str, ...]


LIGHT = Theme(
    "#fcfaf5", "#1d1b18", "#756d61", "#d9d1c3", "#b06a00",
    ("#0a5ea8", "#c8500a", "#00705f", "#b0458c", "#7a6100", "#5a43b8", "#a3243b"),
)  # fmt: skip
DARK = Theme(
    "#15171c", "#ece6da", "#a59d90", "#3c404a", "#f0a840",
    ("#6fb4f2", "#f58a4b", "#3fc4a8", "#ee8fc8", "#d3b548", "#aa9bff", "#f27e8f"),
)  # fmt: skip


class _Line(NamedTuple):
    text: str
    scan: Scan
    marks: list[Mark]
    letter: str
    height: float  # of its baseline, from the top


def write_poem(
    text: str,
    out: FilePath,
    *,
    metre: str = "iambic-pentameter",
    form: str | None = None,
    title: str = "",
    dark: bool = False,
) -> None:
    """Write a poem's picture as SVG or PNG, whichever the ending says.

    An SVG follows the reader's light or dark theme; `dark` makes either dark for good.

    Args:
        text: plain or tagged; empty lines part stanzas.
        out: the file, which is replaced.
        metre: that lines are held against.
        form: a name or letters; without one, rhymes are looked for.
        title: stands above the poem.

    Raises:
        UserError: there is no line, there are too many, or the ending is another one.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in ("svg", "png"):
        raise UserError(f"A picture is a .svg or a .png, not “{out.name}”.")
    theme = DARK if dark else LIGHT
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "coterie",
                                "text.parse_math": False}):  # fmt: skip
        figure = poem_figure(text, metre, form, printable(title), theme)
        content = io.BytesIO()
        named = {"Title": printable(title)} if title else {}
        metadata: dict[str, Any] = {"Date": None, **named} if ending == "svg" else named
        figure.savefig(content, format=ending, dpi=160, metadata=metadata, facecolor=theme.ground)
    made = content.getvalue()
    if ending == "svg":  # a hundredth of a point is enough, and half as large
        drawn = re.sub(r"(\d\.\d\d)\d+", r"\1", made.decode())
        made = (drawn if dark else _with_dark(drawn)).encode()
    with explain_disk_errors(str(out)), atomic_file(out) as partial:
        partial.write_bytes(made)


def poem_figure(
    text: str, metre: str, form: str | None, title: str = "", theme: Theme = LIGHT
) -> Figure:
    """Return a poem's figure; see `write_poem`."""
    lines = _lines(text, metre, form, _TOP + (_TITLE if title else 0))
    if not lines:
        raise UserError("The text has no line of words, so there is nothing to draw.")
    widest = max(_width(line.text) for line in lines)
    edge = _LEFT + widest + 34
    pairs = _pairs(lines)
    reach = max((second - first for first, second, _ in pairs), default=1)
    wide, high = edge + 60 + 9 * min(reach, 6), lines[-1].height + _BOTTOM + 34
    figure = Figure(figsize=(wide / 72, high / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(high, 0))
    axes.axis("off")
    if title:
        _write(axes, _LEFT, _TOP - 8, title, theme.ink, 25, style="italic")
    colours = _colours(lines, theme)
    for number, line in enumerate(lines, start=1):
        _draw_line(axes, number, line, edge, colours.get(line.letter), theme)
    for first, second, kind in pairs:
        _draw_arc(axes, lines, first, second, kind, edge + 11, colours[lines[first].letter])
    _draw_foot(axes, lines, metre, wide, high, theme)
    return figure


def _lines(text: str, metre: str, form: str | None, top: float) -> list[_Line]:
    groups = [stanza.lines for stanza in stanzas(text)]
    flat = [line for lines in groups for line in lines]
    if len(flat) > MOST:
        raise UserError(f"{len(flat):,} lines are too many for a picture; it takes {MOST}.")
    named = metre_of(metre)
    letters = letters_of(flat)
    if form is not None:
        row = form_of(form).letters
        letters = [row[at % len(row)] for at in range(len(flat))]
        rounds = [at // len(row) for at in range(len(flat))]
    else:
        rounds = [0] * len(flat)
    found, height, place = [], top + _PITCH * 0.35, 0
    for lines in groups:
        for index, line in enumerate(lines):
            scanned = scan(line, named, index)
            letter = letters[place] + ("" if not rounds[place] else str(rounds[place]))
            shown = printable(line).replace("'", "’")
            found.append(_Line(shown, scanned, marks_of(scanned), letter, height))
            height += _PITCH
            place += 1
        height += _GAP
    return found


def _pairs(lines: Sequence[_Line]) -> list[tuple[int, int, str]]:
    """Return each line with the next of its letter, and how the two rhyme."""
    found, latest = [], {}
    for at, line in enumerate(lines):
        if line.letter in latest:
            before = latest[line.letter]
            kind = rhyme(last_word(lines[before].text), last_word(line.text)).kind
            found.append((before, at, kind))
        latest[line.letter] = at
    return found


def _colours(lines: Sequence[_Line], theme: Theme) -> dict[str, str]:
    """Return a colour for each letter that more than one line has."""
    letters = [line.letter for line in lines]
    several = dict.fromkeys(each for each in letters if letters.count(each) > 1)
    return {each: theme.rhymes[at % len(theme.rhymes)] for at, each in enumerate(several)}


def _draw_line(
    axes: Axes, number: int, line: _Line, edge: float, colour: str | None, theme: Theme
) -> None:
    """Draw a line's number, words, marks, licences, and its letter at the edge."""
    y = line.height
    if number % 5 == 0:
        _write(axes, _LEFT - 18, y, str(number), theme.soft, 9.5, align="right")
    rhyming = _rhyming_part(line) if colour else len(line.text)
    _write(axes, _LEFT, y, line.text[:rhyming], theme.ink)
    _write(axes, _LEFT + _width(line.text[:rhyming]), y, line.text[rhyming:], colour or theme.ink)
    for mark in line.marks:
        left, right = (_LEFT + _width(line.text[:at]) for at in (mark.start, mark.end))
        _draw_mark(axes, (left + right) / 2, y - 20, mark, theme)
    free = 0.0
    for word, told in _licences(line.scan).items():
        cut = line.scan.words[word]
        left, right = (_LEFT + _width(line.text[:at])
                       for at in (cut.start, cut.start + len(cut.text)))  # fmt: skip
        axes.plot([left, right], [y + 4.6] * 2, color=theme.forced, lw=0.7, ls=(0, (1, 1.6)))
        wide = _width(told, 8.6, "italic")
        at = max((left + right - wide) / 2, free)
        _write(axes, at, y + 13.5, told, theme.forced, 8.6, style="italic")
        free = at + wide + 8
    if not line.scan.metrical:
        told = "does not scan" if not line.scan.said else "costs too much"
        _write(axes, edge - 20, y + 13.5, told, theme.soft, 8.6, align="right", style="italic")
    axes.plot([_LEFT + _width(line.text) + 9, edge - 14], [y - 4.6] * 2, color=theme.hair, lw=0.8,
              ls=(0, (0.8, 3)), dash_capstyle="round")  # fmt: skip
    if colour is not None:
        axes.add_patch(Circle((edge, y - 5), 7.6, color=colour, lw=0))
    _write(axes, edge, y - 1.7, line.letter, theme.ground if colour else theme.soft, 10,
           align="center", weight="bold" if colour else "normal")  # fmt: skip


def _draw_mark(axes: Axes, x: float, y: float, mark: Mark, theme: Theme) -> None:
    """Draw a stroke for a strong syllable, a bow for a weak one."""
    if mark.strong:
        colour = theme.forced if mark.forced else theme.ink
        axes.plot([x - 1.9, x + 2.3], [y + 2.2, y - 5.4], color=colour, lw=1.5,
                  solid_capstyle="round")  # fmt: skip
        return
    bow = Path([(x - 3.7, y - 3.4), (x - 2.4, y + 1.7), (x + 2.4, y + 1.7), (x + 3.7, y - 3.4)],
               [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])  # fmt: skip
    colour = theme.forced if mark.forced else theme.soft
    axes.add_patch(PathPatch(bow, fc="none", ec=colour, lw=0.9, capstyle="round"))


def _draw_arc(
    axes: Axes, lines: Sequence[_Line], first: int, second: int, kind: str, x: float, colour: str
) -> None:
    """Join two lines of a letter: by a line where they rhyme, dashed if nearly, dotted if not."""
    above, below = lines[first].height - 5, lines[second].height - 5
    bulge = 13 + 9 * min(second - first, 6)
    arc = Path([(x, above), (x + bulge, above), (x + bulge, below), (x, below)],
               [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])  # fmt: skip
    styles: dict[str, Any] = {"perfect": "-", "slant": (0, (4, 2))}
    axes.add_patch(PathPatch(arc, fc="none", ec=colour, lw=1.4, ls=styles.get(kind, (0, (1, 3))),
                             capstyle="round"))  # fmt: skip


def _draw_foot(
    axes: Axes, lines: Sequence[_Line], metre: str, wide: float, high: float, theme: Theme
) -> None:
    """Say below the poem what was judged, and what the marks mean."""
    good = sum(line.scan.metrical for line in lines)
    y = high - 40
    axes.plot([_LEFT, wide - _LEFT], [y - 18] * 2, color=theme.hair, lw=0.8)
    name = metre_of(metre).name.replace("-", " ")
    said = f"{name}: {good} of {len(lines)} lines scan"
    _write(axes, _LEFT, y, said, theme.soft, 10.5)
    x = _LEFT
    for strong, forced, told in ((True, False, "strong"), (False, False, "weak"),
                                 (True, True, "promoted"), (False, True, "demoted")):  # fmt: skip
        _draw_mark(axes, x + 4, y + 15.5, Mark(0, 0, strong, forced), theme)
        _write(axes, x + 13, y + 18, told, theme.soft, 9.5, style="italic")
        x += 27 + _width(told, 9.5, "italic")


def _licences(scanned: Scan) -> dict[int, str]:
    """Return what is to be said below each word."""
    found: dict[int, str] = {}
    for reason in scanned.reasons:
        if reason.name not in _QUIET:
            told = "inverted" if reason.name.startswith("inverted") else reason.name
            before = found.get(reason.word)
            found[reason.word] = told if before in (None, told) else f"{before}, {told}"
    return found


def _rhyming_part(line: _Line) -> int:
    """Return where the rhyme begins: at the last strong syllable's vowel, in the last word."""
    if not line.scan.words:
        return len(line.text)
    start = line.scan.words[-1].start
    strong = [mark.start for mark in line.marks if mark.strong and mark.start >= start]
    return strong[-1] if strong else start


def _font(size: float, style: Style = "normal", weight: str = "normal") -> FontProperties:
    return FontProperties(family=[_FAMILY, "DejaVu Serif"], size=size, style=style, weight=weight)


def _width(
    text: str, size: float = _SIZE, style: Style = "normal", weight: str = "normal"
) -> float:
    """Return how wide a text is, in points; blanks at its end count."""
    if not text:
        return 0.0
    font = _font(size, style, weight)
    end, bar = (text_to_path.get_text_width_height_descent(each, font, False)[0]
                for each in (f"{text}|", "|"))  # fmt: skip
    return float(end - bar)


def _write(
    axes: Axes, x: float, y: float, text: str, colour: str, size: float = _SIZE,
    align: str = "left", style: Style = "normal", weight: str = "normal",
) -> None:  # fmt: skip
    """Draw a text as outlines, which stand where they are measured to, at every resolution."""
    if not text:
        return
    shift = {"left": 0.0, "center": 0.5, "right": 1.0}[align] * _width(text, size, style, weight)
    drawn = TextPath((0, 0), text, prop=_font(size, style, weight), size=size)
    placed = drawn.transformed(Affine2D().scale(1, -1).translate(x - shift, y))
    axes.add_patch(PathPatch(placed, fc=colour, lw=0))


def _with_dark(svg: str) -> str:
    """Return an SVG that changes its colours with the reader's theme."""
    light = (LIGHT.ground, LIGHT.ink, LIGHT.soft, LIGHT.hair, LIGHT.forced, *LIGHT.rhymes)
    dark = (DARK.ground, DARK.ink, DARK.soft, DARK.hair, DARK.forced, *DARK.rhymes)
    rules = "".join(
        f'[style*="{name}: {old}"]{{{name}:{new}!important}}'
        for old, new in zip(light, dark, strict=True)
        for name in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    return svg.replace("<defs>", f"{style}<defs>", 1)
