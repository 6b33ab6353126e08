"""Read a play in Markdown: `##` headings, `**SPEAKER**`, `_direction_`, everything else is words.

The reader goes line by line and tries its rules in one order; the first that fits takes the line.
Headings may stand at any level or as plain text, directions may be emphasised with `_` or `*`, may
run over several lines and may be bracketed (`_\\[Aside]_`: then they open the next spoken line).
Nothing is dropped silently: a line that no rule fits is kept among the play's `problems`, a line
that a rule leaves out (a running title) among its `removed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from coterie.language.drama.structure import (
    Act,
    Direction,
    Line,
    Play,
    Problem,
    Scene,
    Speech,
    StanzaBreak,
)
from coterie.language.drama.typography import tidy_line

LACUNA = "..."
"""Stands for words that the source marks as lost with empty brackets."""

UNKNOWN = "UNKNOWN"
"""Speaker of words that have none; each such place is also reported as a problem."""

_HEADING = re.compile(r"#+\s*(.+)")
_PLAIN_HEADING = re.compile(r"(?:ACT|SCENE) [IVX]+[:.].*|EPILOGUE|PROLOGUE")
_ACT = re.compile(r"(?:ACT ([IVX]+)|(INDUCTION))\.?", re.I)
_SCENE = re.compile(r"SCENE ([IVX]+)(?:[.:]\s*(.*))?", re.I)
_FRAME = re.compile(r"(PROLOGUE|EPILOGUE)(?:[.:]\s*(.*))?", re.I)
_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_BRACKETED = re.compile(r"[_*]*\\?\[([^\]]*)\][_*]*")
_EDITORIAL = re.compile(r"(.+?)\s_+\\?\[([^\]]*)\]_")
_EMPHASIS = re.compile(r"([_*])(?!\*)")
_SET_PIECE = re.compile(r"(?:THE |[A-Z]+'S )?(?:SONG|song)\.|DUMB SHOW\.")
_ORDER = re.compile(r"\d+\\?\.\s")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!~-])")
_LEFT_OVER = re.compile(r"[\\_*#\[\]<>{}|~^=$@+/]")
_LOOSE_GENITIVE = re.compile(r"(?<=\w) (?='s\b)")


@dataclass
class _OpenScene:
    """A scene while it is being read."""

    label: str
    place: str
    body: list[Speech | Direction] = field(default_factory=list)
    speaker: str | None = None
    words: list[Line | Direction | StanzaBreak] = field(default_factory=list)

    def close_speech(self) -> None:
        """End the running speech; what was only done after its last words belongs to the scene."""
        if self.speaker is None:
            return
        after: list[Speech | Direction] = []
        while self.words and isinstance(last := self.words[-1], Direction) and not last.inline:
            after.insert(0, last)
            self.words.pop()
        self.body.append(Speech(self.speaker, tuple(self.words)))
        self.body += after
        self.speaker, self.words = None, []


def parse_play(text: str, *, title: str | None = None) -> Play:
    """Return the play that a Markdown text holds.

    Args:
        text: the source; `# Title` on top is optional.
        title: the title to give the play; by default the source's own.
    """
    return _Reader(title).read(text)


class _Reader:
    def __init__(self, title: str | None) -> None:
        self.given_title, self.own_title = title, ""
        self.acts: list[tuple[str | None, list[_OpenScene]]] = []
        self.scene: _OpenScene | None = None
        self.early: list[Direction] = []  # directions between an act's heading and its first scene
        self.gap = False  # an empty line came just before
        self.heading_open = False  # the scene's heading may go on in the next paragraph
        self.joining = ""  # words whose verse goes on in the next line
        self.run_on: tuple[str, list[str]] | None = None  # a direction over several lines
        self.problems: list[Problem] = []
        self.removed: list[Problem] = []

    def read(self, text: str) -> Play:
        number, raw = 0, ""
        for number, raw in enumerate(text.splitlines(), start=1):
            self._line(number, raw.strip())
        if self.run_on:
            self._end_run_on(number, "a direction that never ends")
        self._close_scene()
        if self.early:
            self._problem(number, self.early[-1].text, "a direction without a scene")
        acts = tuple(
            Act(label, tuple(Scene(s.label, s.place, tuple(s.body)) for s in scenes))
            for label, scenes in self.acts
        )
        title = self.given_title or self.own_title
        if not title:
            self._problem(1, text.split("\n", 1)[0], "the play has no title and none was given")
        return Play(title or "Untitled", acts, tuple(self.problems), tuple(self.removed))

    def _problem(self, number: int, text: str, reason: str) -> None:
        self.problems.append(Problem(number, text, reason))

    def _line(self, number: int, line: str) -> None:
        if self.run_on:
            self._continue_run_on(number, line)
        elif not line:
            self.gap = True
        else:
            self._place(number, line)
            self.gap = False

    def _place(self, number: int, line: str) -> None:
        """Try the rules in order; the first that fits takes the line."""
        heading = _HEADING.fullmatch(line)
        if heading or _PLAIN_HEADING.fullmatch(line):
            self._heading(number, heading[1] if heading else line)
        elif found := _SPEAKER.fullmatch(line):
            self._speaker(number, line, found[1])
        elif found := _BRACKETED.fullmatch(line):
            self._direction(number, found[1], inline=True)
        elif found := _EMPHASIS.match(line):
            self._start_emphasis(number, line, found[1])
        elif _SET_PIECE.fullmatch(line):
            self._direction(number, line)
        elif _ORDER.match(line):
            self.run_on = ("", [line])
        elif line == self.own_title.upper():
            self.removed.append(Problem(number, line, "running title"))
        elif self.heading_open and self.scene and _SCENE.match("SCENE " + self.scene.label):
            self.scene.place = f"{self.scene.place} {tidy_line(line)}".strip()
        else:
            self._words(number, line)

    def _heading(self, number: int, text: str) -> None:
        text = tidy_line(text)
        if found := _ACT.fullmatch(text):
            self._close_scene()
            self.acts.append(((found[1] or found[2]).upper(), []))
        elif found := _SCENE.fullmatch(text) or _FRAME.fullmatch(text):
            self._open_scene(found[1].upper(), found[2] or "")
        elif text.upper() == "INTERMISSION":
            self._direction(number, "Intermission")
        elif not self.own_title and not self.acts:
            self.own_title = text
        else:
            self._problem(number, text, "a heading of an unknown kind")

    def _open_scene(self, label: str, place: str) -> None:
        self._close_scene()
        if not self.acts:
            self.acts.append((None, []))
        self.scene = _OpenScene(label, place)
        self.scene.body += self.early
        self.early = []
        self.acts[-1][1].append(self.scene)
        self.heading_open = True

    def _close_scene(self) -> None:
        if self.scene:
            self.scene.close_speech()
        self.scene = None
        self.heading_open = False

    def _speaker(self, number: int, line: str, name: str) -> None:
        self.heading_open = False
        if not self.scene:
            self._problem(number, line, "a speaker outside a scene")
            return
        self.scene.close_speech()
        names = [part.strip(" :") for part in tidy_line(name).split(" & ")]
        self.scene.speaker = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        if _LEFT_OVER.search(name):
            self._problem(number, line, "marks left over in a speaker's name")

    def _direction(self, number: int, text: str, *, inline: bool = False) -> None:
        """Put a direction into the running speech, else the scene, else before the next scene."""
        self.heading_open = False
        text = re.sub(r"[_*]|\\?\[|\]", "", text)
        text = _LOOSE_GENITIVE.sub("", tidy_line(_ESCAPE.sub(r"\1", text)))
        if not text or _LEFT_OVER.search(text):
            self._problem(number, text, "marks left over in a direction, or nothing in it")
            text = re.sub(_LEFT_OVER, "", text).strip()
        if not text:
            return
        if not self.scene:
            self.early.append(Direction(text))
        elif self.scene.speaker is None:
            self.scene.body.append(Direction(text))
        else:
            self.scene.words.append(Direction(text, inline))

    def _start_emphasis(self, number: int, line: str, mark: str) -> None:
        if len(line) > 1 and line.endswith(mark):
            inner = line.strip("_*")
            bracketed = inner.startswith(("[", "\\[")) and inner.endswith("]")
            self._direction(number, line, inline=bracketed)
        else:
            self.run_on = (mark, [line])

    def _continue_run_on(self, number: int, line: str) -> None:
        """Add a line to an emphasised direction (until its mark) or an order (until a gap)."""
        assert self.run_on is not None
        mark, lines = self.run_on
        if not line:
            self._end_run_on(number, "a direction that never ends" if mark else "")
            self.gap = True
        elif not mark and _ORDER.match(line):
            self._end_run_on(number, "")
            self.run_on = ("", [line])
        else:
            lines.append(line)
            if mark and line.endswith(mark):
                self._end_run_on(number, "")

    def _end_run_on(self, number: int, problem: str) -> None:
        assert self.run_on is not None
        text, self.run_on = " ".join(self.run_on[1]), None
        if problem:
            self._problem(number, text, problem)
        self._direction(number, text)

    def _words(self, number: int, line: str) -> None:
        """Add a spoken line; bracketed editors' words inside it lose their brackets."""
        self.heading_open = False
        if not self.scene:
            self._problem(number, line, "words outside a scene")
            return
        if self.scene.speaker is None:
            framed = self.scene.label in ("PROLOGUE", "EPILOGUE")
            self.scene.speaker = self.scene.label.capitalize() if framed else UNKNOWN
            if not framed:
                self._problem(number, line, "words without a speaker")
        if found := _EDITORIAL.fullmatch(line):
            self.joining += f"{found[1]} {found[2].strip() or LACUNA} "
            return
        text = tidy_line(_ESCAPE.sub(r"\1", self.joining + line))
        self.joining = ""
        if _LEFT_OVER.search(text):
            self._problem(number, line, "marks left over in words")
            text = re.sub(r"[<>]", "", text)  # these would break the tags
        words = self.scene.words
        if self.gap and words and isinstance(words[-1], Line):
            words.append(StanzaBreak())
        words.append(Line(text))
