"""What the next line of a tagged text may be: the grammar of `tags` as a machine of lines.

`begin` reads what is there already, `Place.after` takes one more line, `Place.next_lines` names
every line that may follow, so that whoever writes by it ends up with text that `check_tagged`
accepts, whatever it would rather have written. Acts and scenes are numbered in order. With a cast
only its members speak, and only while they are on the stage: they come with `Enter` and `Re-enter`
and leave with `Exit`, `Exeunt` or the end of a scene.
"""

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from coterie.language.drama.layouts import roman
from coterie.language.drama.tags import HEADING, STAGE, check_tagged


class Free(NamedTuple):
    """Any text that a regular expression fits, `without` what another one fits inside of it."""

    pattern: str
    without: str = ""


class Name(NamedTuple):
    """One of several names; or some of them, as in `A, B and C`."""

    of: tuple[str, ...]
    several: bool = False


Part = str | Free | Name
Writable = tuple[Part, ...]
"""A line in parts one after the other, its line end included."""


class Shape(NamedTuple):
    """What a play or a poem is to be like; `None` leaves it open.

    Attributes:
        acts: how many acts, exactly.
        scenes: how many scenes an act has, exactly; a prologue is none.
        speeches: the fewest and the most of a scene.
        lines: the fewest and the most lines of words of a speech, or of a part of a poem.
        width: the most bytes of a line, marks not counted; where it could not end, a few more.
        cast: who may speak, while on the stage.
    """

    acts: int | None = None
    scenes: int | None = None
    speeches: tuple[int, int | None] = (1, None)
    lines: tuple[int, int | None] = (1, None)
    width: int = 100
    cast: tuple[str, ...] | None = None

    @property
    def is_play(self) -> bool:
        """Whether it asks for what no poem has."""
        return any(each is not None for each in (self.acts, self.scenes, self.cast))


# What stands in a line beside blanks; Python calls later additions to Unicode unprintable.
_INK = r"[\p{L}\p{N}\p{P}\p{S}&&[^<>]&&\p{Age=14.0}]"
_MOVES = "[Ee]nter|[Ee]xit|[Ee]xeunt|[Mm]anet"
_NUMBERS = {roman(number): number for number in range(1, 200)}
_MOVE = re.compile(r"(Enter|Re-enter|Exit|Exeunt)\b *(.*)")
# Where a text may begin, before what shows that it does: the marks that must be there already.
_BEFORE = {
    "ACT": ("<PLAY>T</PLAY>",),
    "SCENE": ("<PLAY>T</PLAY>", "<ACT>I</ACT>"),
    "SPEAKER": ("<PLAY>T</PLAY>", "<ACT>I</ACT>", "<SCENE>I</SCENE>"),
    "PART": ("<POEM>T</POEM>",),
}
_KINDS = ("PLAY", "POEM")
_IN_SPEECH = (*_BEFORE["SPEAKER"], "<SPEAKER>S</SPEAKER>")


_WORDS = Free(rf"{_INK}(?:(?:{_INK}|[ \p{{M}}&&\p{{Age=14.0}}])*{_INK})?")
_DIRECTION = Free(_WORDS.pattern, without=_MOVES)
_NAME_WIDTH = 40


@dataclass(frozen=True)
class Place:
    """A place between two lines of a text.

    Attributes:
        kind: PLAY or POEM; empty before the title.
        act: the number of the running act, 0 before the first.
        scene: the number of the running scene: 0 a prologue, None outside a scene.
        speeches: how many the scene has.
        lines: how many lines of words the speech or part has.
        speaker: who speaks.
        on_stage: who of the cast is there.
        last: what the line before was: a mark's name, `words` or `blank`.
        directions: how many lines of directions came one after the other.
    """

    shape: Shape
    kind: str = ""
    act: int = 0
    scene: int | None = None
    speeches: int = 0
    lines: int = 0
    speaker: str | None = None
    on_stage: frozenset[str] = frozenset()
    last: str = ""
    directions: int = 0

    def after(self, line: str) -> "Place":
        """Return the place after one more line, which is one that may stand here."""
        found = HEADING.fullmatch(line)
        if found:
            return self._after_heading(found[1], found[2])
        words = STAGE.sub("", line).strip()
        if words:
            return replace(self, lines=self.lines + 1, last="words", directions=0)
        if not line:
            return replace(self, last="blank")
        place = replace(self, last="STAGE", directions=self.directions + 1)
        for direction in STAGE.findall(line):
            place = place._after_move(direction)
        return place

    def _after_heading(self, name: str, content: str) -> "Place":
        place = replace(self, last=name, lines=0, directions=0)
        if name in _KINDS:
            return replace(place, kind=name)
        if name == "SPEAKER":
            return replace(place, speaker=content, speeches=self.speeches + 1)
        place = replace(place, speaker=None, speeches=0, on_stage=frozenset())
        number = _NUMBERS.get(re.split(r"\W", content)[0])
        if name == "ACT":
            return replace(place, act=number or self.act, scene=None)
        return replace(place, scene=number or self.scene or 0) if name == "SCENE" else place

    def _after_move(self, direction: str) -> "Place":
        """Return the place after a direction: who came and who went."""
        cast, found = self.shape.cast, _MOVE.fullmatch(direction)
        if not cast or not found:
            return self
        named = frozenset(each for each in cast if re.search(rf"(?<!\w){re.escape(each)}(?!\w)",
                                                              found[2]))  # fmt: skip
        if "nter" in found[1]:
            return replace(self, on_stage=self.on_stage | named)
        alone = frozenset([self.speaker or ""]) if found[1] == "Exit" else self.on_stage
        left = self.on_stage - (named or alone)
        gone = self.speaker not in left
        return replace(self, on_stage=left, speaker=None if gone else self.speaker)

    @property
    def may_end(self) -> bool:
        """Whether the text is whole here."""
        shape = self.shape
        if self.kind == "POEM":
            return self.last == "words" and self.lines >= shape.lines[0]
        acts, scenes = self.act >= (shape.acts or 1), (self.scene or 0) >= (shape.scenes or 1)
        return self._scene_is_whole and acts and scenes

    def room(self, begun: str) -> int:
        """Return how many bytes more a line may have that has begun like this."""
        mark, _, words = begun.rpartition(">")
        most = _NAME_WIDTH if mark.endswith("<SPEAKER") else self.shape.width
        return most - len(words.encode("utf-8", "replace"))

    @property
    def _speech_is_whole(self) -> bool:
        done = self.lines >= self.shape.lines[0] and self.last != "blank"
        return done or (self.speaker is None and self.last != "blank")

    @property
    def _scene_is_whole(self) -> bool:
        enough = self.scene is not None and self.speeches >= self.shape.speeches[0]
        return enough and self._speech_is_whole

    def next_lines(self) -> list[Writable]:
        """Return every line that may stand here; none: the text must end."""
        if not self.kind:
            titles: list[Writable] = [(f"<{kind}>", _WORDS, f"</{kind}>\n") for kind in _KINDS]
            return titles[:1] if self.shape.is_play else titles
        if self.kind == "POEM":
            part = self.last == "POEM" or self.may_end
            return [*self._spoken(), *([("<PART>", _WORDS, "</PART>\n")] if part else [])]
        if self.scene is None:
            return self._headings(numbered=self.act > 0)
        return [*self._headings(numbered=True), *self._speakers(), *self._spoken(), *self._moves()]

    def _headings(self, numbered: bool) -> list[Writable]:
        """Return headings of the scene and the act that may come next."""
        shape, lines = self.shape, []
        opening = self.scene is None
        scene = (self.scene or 0) + 1
        if numbered and (opening or self._scene_is_whole) and self.act:
            if shape.scenes is None or scene <= shape.scenes:
                lines.append((f"<SCENE>{roman(scene)}. ", _WORDS, "</SCENE>\n"))
            if opening and self.act == 1:
                lines.append(("<SCENE>PROLOGUE</SCENE>\n",))
        elif opening and self.last == "PLAY":
            lines.append(("<SCENE>PROLOGUE</SCENE>\n",))
        whole = self._scene_is_whole and (self.scene or 0) >= (shape.scenes or 1)
        first = not self.act and (opening or self._scene_is_whole)
        if first or (whole and self.act and (shape.acts is None or self.act < shape.acts)):
            lines.append((f"<ACT>{roman(self.act + 1)}</ACT>\n",))
        return lines

    def _speakers(self) -> list[Writable]:
        cast, most = self.shape.cast, self.shape.speeches[1]
        if not self._speech_is_whole or (most is not None and self.speeches >= most):
            return []
        who = _WORDS if cast is None else Name(tuple(sorted(self.on_stage)))
        return (
            [] if cast is not None and not self.on_stage else [("<SPEAKER>", who, "</SPEAKER>\n")]
        )

    def _spoken(self) -> list[Writable]:
        most = self.shape.lines[1]
        if self.kind == "PLAY" and self.speaker is None:
            return []
        if most is not None and self.lines >= most:
            return []
        words: list[Writable] = [(_WORDS, "\n")]
        if self.kind == "PLAY":
            words.append(("<STAGE>", _DIRECTION, "</STAGE> ", _WORDS, "\n"))
        return [*words, ("\n",)] if self.last == "words" else words

    def _moves(self) -> list[Writable]:
        """Return the directions that may stand on a line of their own."""
        shape, here = self.shape, self.on_stage
        if self.last == "blank":
            return []
        free: list[Writable] = [("<STAGE>", _DIRECTION, "</STAGE>\n")]
        if shape.cast is None:
            free = [("<STAGE>", _WORDS, "</STAGE>\n")]
        lines = free if self.directions < 2 else []
        absent = tuple(each for each in shape.cast or () if each not in here)
        if absent and (self.directions < 2 or not here):
            lines += [("<STAGE>Enter ", Name(absent, several=True), "</STAGE>\n")]
        if here and self.directions < 2 and self._speech_is_whole:
            lines += [("<STAGE>Exit ", Name(tuple(sorted(here))), "</STAGE>\n"),
                      ("<STAGE>Exeunt</STAGE>\n",)]  # fmt: skip
        return lines


def begin(text: str, shape: Shape) -> tuple[Place, str]:
    """Return the place after the whole lines of a text, and the line that has begun there.

    A text may begin with any mark, or with words, which then are a speech's. Whoever is in the cast
    is on the stage where a text begins within a scene.

    Raises:
        ValueError: the text breaks the grammar; the first lines that do are named.
    """
    *lines, rest = text.split("\n")
    found = HEADING.match(lines[0]) if lines else None
    before = _BEFORE.get(found[1], ()) if found else (_IN_SPEECH if lines else ())
    if lines and STAGE.match(lines[0]):
        before = _BEFORE["SPEAKER"]
    # The second line of a stanza mark at the end is still to come.
    marked = len(lines) > 1 and not lines[-1] and lines[-2] and not HEADING.fullmatch(lines[-2])
    checked = lines[:-1] if marked else lines
    problems = check_tagged("\n".join([*before, *checked]) + "\n") if lines else []
    if problems:
        told = [_moved(each, len(before)) for each in problems]
        raise ValueError("; ".join(told[:3]) + (" …" if len(told) > 3 else ""))
    place = Place(shape)
    for line in before:
        place = place.after(line)
    if place.scene is not None:
        place = replace(place, on_stage=frozenset(shape.cast or ()))
    for line in lines:
        place = place.after(line)
    return place, rest


def _moved(problem: str, by: int) -> str:
    """Return a problem with the number of its line among those of the text alone."""
    return re.sub(r"\Aline (\d+)", lambda found: f"line {int(found[1]) - by}", problem)
