"""Read a play in any of the known layouts: headings, speakers, directions, everything else words.

The reader goes line by line and tries its rules in one order; the first that fits takes the line.
Directions may be emphasised with `_` or `*` or bracketed, may run over several lines, and may stand
inside of speech: then they open the spoken line. Nothing is dropped silently: what no rule fits is
kept where it may be and told in the play's `problems`; what a rule leaves out (a list of persons, a
running title) is told in `removed`, a heading that is written in another way in `rewritten`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from coterie.language.drama.apparatus import numbered, strip_apparatus, without_emphasis
from coterie.language.drama.layouts import END, FRAMES, LAYOUTS, NEVER, PAUSE, Heading, heading_of
from coterie.language.drama.names import Names, Speaker, find_names
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
from coterie.language.drama.typography import LEFT_OVER, LOST, letters, tidy_line

UNKNOWN = "UNKNOWN"
"""Speaker of words that have none; each such place is also reported as a problem."""

_MARKED_HEADING = re.compile(r"#+\s*(.+)")
_EMPHASIS = re.compile(r"([_*])(?!\*)")
_OPENING_BRACKET = re.compile(r"[_*]*\\?\[")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!~-])")
_OPENED = re.compile(r"(.*?)\s*\[([^\]]*)")
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
        at = len(self.words)
        while at and isinstance(last := self.words[at - 1], Direction) and not last.inline:
            at -= 1
        after = [each for each in self.words[at:] if isinstance(each, Direction)]
        self.body += [Speech(self.speaker, tuple(self.words[:at])), *after]
        self.speaker, self.words = None, []


def parse_play(text: str, *, title: str | None = None) -> Play:
    """Return the play that a text holds.

    Args:
        text: the source in one of the `LAYOUTS`; a title on top is optional.
        title: the title to give the play; by default the source's own.
    """
    text, removed = strip_apparatus(text)
    lines = numbered(text)
    return _Reader(title, find_names(lines), removed).read(lines)


class _Reader:
    def __init__(self, title: str | None, names: Names, removed: list[Problem]) -> None:
        self.given_title, self.own_title = title, ""
        self.names, self.layout = names, LAYOUTS[names.layout]
        self.acts: list[tuple[str | None, list[_OpenScene]]] = []
        self.scene: _OpenScene | None = None
        self.early: list[Direction] = []  # directions between an act's heading and its first scene
        self.gap = True  # an empty line came just before
        self.heading_open = False  # the scene's heading may go on in the next paragraph
        self.over = False  # the play has ended
        self.joining = ""  # words whose verse goes on in the next line
        self.run_on: tuple[str, list[str]] | None = None  # a direction over several lines
        self.problems: list[Problem] = []
        self.removed = removed
        self.rewritten: list[Problem] = []

    def read(self, numbered_lines: list[tuple[int, str]]) -> Play:
        lines = [self.layout.prepare(line.strip()) for _, line in numbered_lines]
        number = 0
        for (number, _), line, following in zip(
            numbered_lines, lines, [*lines[1:], ""], strict=True
        ):
            self._line(number, line, following)
        if self.run_on:
            self._end_run_on(number, "a direction that never ends")
        if self.joining:
            self._words(number, "")
        self._close_scene()
        if self.early:
            self._problem(number, self.early[-1].text, "a direction without a scene")
        acts = tuple(
            Act(label, tuple(Scene(s.label, s.place, tuple(s.body)) for s in scenes))
            for label, scenes in self.acts
        )
        title = self.given_title or self.own_title
        if not title:
            first = next(filter(None, lines), "")
            self._problem(1, first, "the play has no title and none was given")
        account = (tuple(each) for each in (self.problems, self.removed, self.rewritten))
        return Play(title or "Untitled", acts, *account)

    def _problem(self, number: int, text: str, reason: str) -> None:
        self.problems.append(Problem(number, text, reason))

    def _remove(self, number: int, text: str, reason: str) -> None:
        self.removed.append(Problem(number, text, reason))

    def _line(self, number: int, line: str, following: str) -> None:
        if self.run_on:
            self._continue_run_on(number, line, following)
        elif not line:
            self.gap = True
        else:
            self._place(number, line, following)
            self.gap = False

    def _place(self, number: int, line: str, following: str) -> None:
        """Try the rules in order; the first that fits takes the line."""
        if self._starts_part(number, line, following):
            pass
        elif self.over or self._ends(number, line):
            self._remove(number, line, "the end")
        elif not self.acts and self.names.headings:
            self._front(number, line)
        elif found := self.names.speakers.get(number):
            self._speaker(number, line, found)
        elif _OPENING_BRACKET.match(line):
            self._start_bracket(number, line)
        elif found := _EMPHASIS.match(line):
            self._start_emphasis(number, line, found[1])
        elif PAUSE.fullmatch(line):
            self._direction(number, line)
        elif self.layout.opening.fullmatch(line):
            self.run_on = ("", [line])
        elif line == self.own_title.upper():
            self._remove(number, line, "running title")
        elif self.heading_open and self.scene and self.scene.label not in FRAMES:
            self.scene.place = f"{self.scene.place} {tidy_line(line)}".strip()
        else:
            self._spoken(number, line)

    def _starts_part(self, number: int, line: str, following: str) -> bool:
        """Take a heading, marked or plain; return whether the line was one."""
        if number in self.names.contents:
            self._remove(number, line, "a list of contents")
            return True
        marked = _MARKED_HEADING.fullmatch(line)
        text = marked[1] if marked else line
        heading = heading_of(text)
        if not marked and heading and heading.scene in FRAMES:
            plain = (following and not self.layout.sure) or not (self.gap or line.isupper())
            heading = None if plain or number in self.names.speakers else heading
        if heading:
            self._heading(number, line, heading)
        elif marked and tidy_line(text).upper() == "INTERMISSION":
            self._direction(number, "Intermission")
        elif marked and not self.own_title and not self.acts:
            self.own_title = tidy_line(text)
        elif marked:
            self._problem(number, text, "a heading of an unknown kind")
        return bool(marked or heading)

    def _ends(self, number: int, line: str) -> bool:
        """Whether a line says that an act or, as nobody speaks after it, the play is over."""
        if not END.fullmatch(line):
            return False
        act = re.search(r"\bACT", line.upper()) is not None
        self.over = not act and number > max(self.names.speakers, default=0)
        return act or self.over or line.upper().startswith("FINIS")

    def _front(self, number: int, line: str) -> None:
        """Take the title from the lines before the first heading, and leave out the others."""
        if not self.own_title and not self.given_title:
            self.own_title = tidy_line(line)
        else:
            self._remove(number, line, "front matter")

    def _heading(self, number: int, line: str, heading: Heading) -> None:
        self.over = False
        act, scene, place = heading
        again = bool(act and self.acts and self.acts[-1][0] == act)
        if act and not again:
            self._close_scene()
            self.acts.append((act, []))
        if scene:
            self._open_scene(scene, place)
        held = [f"{act}{scene}{place}", f"ACT{act}{place}", f"SCENE{scene}{place}"]
        if again or letters(line) not in [letters(each) for each in held]:
            read = " ".join(filter(None, (act and f"ACT {act}", scene)))
            self.rewritten.append(Problem(number, line, f"a heading, read as {read}"))

    def _open_scene(self, label: str, place: str) -> None:
        self._close_scene()
        if not self.acts:
            self.acts.append((None if label == "PROLOGUE" else "I", []))
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

    def _in_scene(self, number: int, line: str, what: str) -> _OpenScene:
        """Return the running scene; where no heading opened one, open it and say so."""
        self.heading_open = False
        if self.scene is None:
            self._problem(number, line, f"{what} outside a scene")
            if not self.acts:
                self.acts.append(("I", []))
            # What comes before the first scene that is headed is a prologue.
            after = next((each for at, each in self.names.headings.items() if at > number), None)
            framed = after is not None and (after.act, after.scene) == ("", "I")
            self._open_scene("PROLOGUE" if framed else "I", "")
            self.heading_open = False
        assert self.scene is not None
        return self.scene

    def _speaker(self, number: int, line: str, speaker: Speaker) -> None:
        scene = self._in_scene(number, line, "a speaker")
        scene.close_speech()
        names = [part.strip(" :") for part in tidy_line(speaker.name).split(" & ")]
        scene.speaker = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        if LEFT_OVER.search(speaker.name):
            self._problem(number, line, "marks left over in a speaker's name")
        for aside in speaker.asides:
            self._direction(number, aside, inline=True)
        if speaker.words:
            self.gap = False
            self._spoken(number, speaker.words)

    def _direction(self, number: int, text: str, *, inline: bool = False) -> None:
        """Put a direction into the running speech, else the scene, else before the next scene."""
        self.heading_open = False
        text = re.sub(r"[_*]|\\?\[|\]", "", text)
        text = _LOOSE_GENITIVE.sub("", tidy_line(_ESCAPE.sub(r"\1", text)))
        if not text or LEFT_OVER.search(text):
            self._problem(number, text, "marks left over in a direction, or nothing in it")
            text = LEFT_OVER.sub("", text).strip()
        if not text:
            return
        if not self.scene:
            self.early.append(Direction(text))
        elif self.scene.speaker is None:
            self.scene.body.append(Direction(text))
        else:
            self.scene.words.append(Direction(text, inline))

    def _start_bracket(self, number: int, line: str) -> None:
        """Take a line that opens with a bracket: a direction, or one that opens spoken words."""
        before, bracket, after = line.partition("]")
        if not bracket:
            self.run_on = ("]", [line])
        elif not re.search(r"\w", after) or (self.layout.aside is NEVER and after.strip("_* ")):
            plain = line[0] == "[" and self.layout.aside is not NEVER
            self._direction(number, line, inline=not plain)
        else:
            self._direction(number, before, inline=True)
            self._spoken(number, after.strip("_*. "))

    def _start_emphasis(self, number: int, line: str, mark: str) -> None:
        if len(line) > 1 and line.endswith(mark):
            inner = line.strip("_*")
            bracketed = inner.startswith(("[", "\\[")) and inner.endswith("]")
            self._direction(number, line, inline=bracketed)
        elif self.layout.aside is not NEVER and mark in line[1:]:
            self._words(number, line)
        else:
            self.run_on = (mark, [line])

    def _continue_run_on(self, number: int, line: str, following: str) -> None:
        """Add a line to a direction: until its mark, or until a gap or a speaker."""
        assert self.run_on is not None
        mark, lines = self.run_on
        if not line:
            ended = mark == "]" and lines[0].endswith((".", "?", "!", "'"))
            spoken = lines[1:] if ended else []
            del lines[len(lines) - len(spoken) :]
            self._end_run_on(number, "a direction that never ends" if mark else "")
            for each in spoken:
                self._spoken(number, each)
            self.gap = True
        elif not mark and (number in self.names.speakers or self.layout.opening.match(line)):
            self._end_run_on(number, "")
            self._line(number, line, following)
        elif mark == "]" and mark in line:
            before, _, after = re.sub(r"\[([^\[\]]*)\]", r"\1", line).partition("]")
            lines.append(before)
            self._end_run_on(number, "")
            if re.search(r"\w", after):
                self._spoken(number, after.strip())
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

    def _spoken(self, number: int, text: str) -> None:
        """Add spoken words; directions inside of them open the line, one at its end follows it."""
        asides = list(self.layout.aside.finditer(text))
        ends = bool(asides) and not re.search(r"\w", text[asides[-1].end() :])
        for aside in asides[:-1] if ends else asides:
            self._direction(number, aside[1], inline=True)
        words = tidy_line(self.layout.aside.sub(" ", text))
        opened = self.layout.aside is not NEVER and _OPENED.fullmatch(words)
        if opened:
            words = opened[1]
        if words and (re.search(r"\w", words) or not asides):
            self._words(number, words)
        if ends:
            self._direction(number, asides[-1][1])
        if opened:
            self.run_on = ("]", [opened[2]])

    def _words(self, number: int, line: str) -> None:
        """Add a spoken line; bracketed editors' words inside it lose their brackets."""
        scene = self._in_scene(number, line, "words")
        if scene.speaker is None:
            framed = scene.label in FRAMES
            if not framed:
                self._problem(number, line, "words without a speaker")
            scene.speaker = scene.label.capitalize() if framed else UNKNOWN
        if found := self.layout.editorial.fullmatch(line):
            self.joining += f"{found[1]} {found[2].strip() or LOST} "
            return
        text = tidy_line(_ESCAPE.sub(r"\1", without_emphasis(self.joining + line)))
        self.joining = ""
        if LEFT_OVER.search(text):
            self._problem(number, line, "marks left over in words")
            text = re.sub(r"[<>]", "", text)  # these would break the tags
        if self.gap and scene.words and isinstance(scene.words[-1], Line):
            scene.words.append(StanzaBreak())
        scene.words.append(Line(text))
