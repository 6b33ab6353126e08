"""The grammar of tagged text: write it, check it, and strip it for people.

Every tag is a pair on one line and holds plain text, never another tag:

    <PLAY>Hamlet</PLAY>                                first line of a play: its title
    <POEM>The Sonnets</POEM>                           first line of a poem or cycle: its title
    <ACT>I</ACT>                                       Roman number, or INDUCTION
    <SCENE>I. Elsinore. A platform.</SCENE>            number and place, or PROLOGUE / EPILOGUE
    <PART>XVIII</PART>                                 part of a poem
    <SPEAKER>HAMLET</SPEAKER>                          who speaks from here on
    <STAGE>Enter GHOST</STAGE>                         stage direction on a line of its own
    <STAGE>Aside</STAGE> A little more than kin,       stage direction that opens a spoken line

Two marks need no tag: the newline is the line mark, one empty line between two lines of words is
the stanza mark. In a play, words follow a SPEAKER, which follows a SCENE, which follows an ACT
(only a PROLOGUE may stand before the first one).
"""

from __future__ import annotations

import re

from coterie.language.drama.structure import Direction, Line, Play, Poem, Scene, Speech

TAG_NAMES = ("PLAY", "POEM", "ACT", "SCENE", "PART", "SPEAKER", "STAGE")
DRAMA_TAGS: tuple[str, ...] = tuple(
    mark for name in TAG_NAMES for mark in (f"<{name}>", f"</{name}>")
)
"""Every mark of the grammar, for use as special tokens."""

ROMAN = re.compile(r"[IVXLC]+")
STAGE = re.compile(r"<STAGE>([^<>]*)</STAGE>")
HEADING = re.compile(r"<(PLAY|POEM|ACT|SCENE|PART|SPEAKER)>([^<>]*)</\1>")
_CUT_MARK = re.compile(r"</?[A-Z]*\Z")
_ANY_MARK = re.compile(r"</?(?:" + "|".join(TAG_NAMES) + r")>")


def to_tagged(work: Play | Poem) -> str:
    """Return a play or a poem as tagged text that ends with a newline."""
    lines = _poem_lines(work) if isinstance(work, Poem) else _play_lines(work)
    return "\n".join(lines) + "\n"


def _bare(text: str) -> str:
    """Return a text without marks that would break the tag around it."""
    return re.sub(r"[<>]", "", text).strip() or "Untitled"


def _poem_lines(poem: Poem) -> list[str]:
    lines = [f"<POEM>{_bare(poem.title)}</POEM>"]
    for part in poem.parts:
        if part.name:
            lines.append(f"<PART>{part.name}</PART>")
        for index, stanza in enumerate(part.stanzas):
            lines += ["", *stanza] if index else [*stanza]
    return lines


def _play_lines(play: Play) -> list[str]:
    lines = [f"<PLAY>{_bare(play.title)}</PLAY>"]
    for act in play.acts:
        if act.label:
            lines.append(f"<ACT>{act.label}</ACT>")
        for scene in act.scenes:
            lines += _scene_lines(scene)
    return lines


def _scene_lines(scene: Scene) -> list[str]:
    place = f". {_bare(scene.place)}" if scene.place else ""
    lines = [f"<SCENE>{scene.label}{place}</SCENE>"]
    for element in scene.body:
        if isinstance(element, Direction):
            lines.append(f"<STAGE>{element.text}</STAGE>")
        else:
            lines += _speech_lines(element)
    return lines


def _speech_lines(speech: Speech) -> list[str]:
    lines = [f"<SPEAKER>{_bare(speech.speaker)}</SPEAKER>"]
    waiting = ""  # inline directions that the next spoken line takes up
    for element in speech.body:
        if isinstance(element, Direction) and element.inline:
            waiting += f"<STAGE>{element.text}</STAGE> "
            continue
        if isinstance(element, Line):
            lines.append(waiting + element.text)
        else:
            lines += [waiting.rstrip()] if waiting else []
            lines.append(f"<STAGE>{element.text}</STAGE>" if isinstance(element, Direction) else "")
        waiting = ""
    return [*lines, waiting.rstrip()] if waiting else lines


def to_inside(text: str) -> str:
    """Return tagged text in the flat form: the title and acts as scenes, directions in brackets.

    `<STAGE>[Exit]</STAGE>`, `<SCENE>ACT III</SCENE>`, `<SCENE>SCENE I. A room.</SCENE>`.
    """
    text = re.sub(r"\A<(PLAY|POEM)>([^<>]*)</\1>", r"<SCENE>\1 \2</SCENE>", text)
    marks = r"^<(SCENE|ACT|PART)>(?!PLAY |POEM )(.*)</\1>$"
    text = re.sub(marks, r"<SCENE>\1 \2</SCENE>", text, flags=re.M)
    return STAGE.sub(r"<STAGE>[\1]</STAGE>", text)


def from_inside(text: str) -> str:
    """Return tagged text whose flat form this is; other text as it is."""
    if not text.startswith(("<SCENE>PLAY ", "<SCENE>POEM ")):
        return text
    marks = r"^<SCENE>(PLAY|POEM|ACT|SCENE|PART) (.*)</SCENE>$"
    text = re.sub(marks, r"<\1>\2</\1>", text, flags=re.M)
    return re.sub(r"<STAGE>\[([^<>]*)\]</STAGE>", r"<STAGE>\1</STAGE>", text)


def check_tagged(text: str) -> list[str]:
    """Return every breach of the grammar as `line N: what is wrong`; an empty list means sound."""
    return _Checker().run(text)


class _Checker:
    """Walk over the lines with the little state the grammar needs."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.kind = ""  # PLAY or POEM
        self.act = self.scene = self.speaker = False
        self.words_before = False  # the line before held words, so a stanza mark may follow

    def run(self, text: str) -> list[str]:
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        else:
            self._report(len(lines), "the text does not end with a newline")
        for number, line in enumerate(lines, start=1):
            following = lines[number] if number < len(lines) else ""
            self._line(number, line, following)
        return self.problems

    def _report(self, number: int, problem: str) -> None:
        self.problems.append(f"line {number}: {problem}")

    def _line(self, number: int, line: str, following: str) -> None:
        if number == 1:
            found = HEADING.fullmatch(line)
            if found and found[1] in ("PLAY", "POEM"):
                self.kind = found[1]
            else:
                self._report(1, "the first line is not a <PLAY> or <POEM> title")
        if not line:
            if not (self.words_before and _holds_words(following)):
                self._report(number, "a stanza mark does not stand between two lines of words")
            self.words_before = False
        elif found := HEADING.fullmatch(line):
            self._heading(number, found[1], found[2])
            self.words_before = False
        else:
            self._words(number, line)

    def _heading(self, number: int, name: str, content: str) -> None:
        if not content.strip() or content != content.strip():
            self._report(number, f"<{name}> is empty or padded")
        if name in ("PLAY", "POEM"):
            if number != 1:
                self._report(number, f"<{name}> may only be the first line")
        elif (name == "PART") != (self.kind == "POEM"):
            self._report(number, f"<{name}> does not belong in a <{self.kind}>")
        elif name == "ACT":
            self.act, self.scene, self.speaker = True, False, False
        elif name == "SCENE":
            if not self.act and not content.startswith("PROLOGUE"):
                self._report(number, "<SCENE> before the first <ACT>")
            self.scene, self.speaker = True, False
        elif name == "SPEAKER":
            if not self.scene:
                self._report(number, "<SPEAKER> outside a scene")
            self.speaker = True

    def _words(self, number: int, line: str) -> None:
        words = STAGE.sub("", line)
        if line != line.strip() or not line.isprintable():
            self._report(number, "padding or a control character")
        if "<" in words or ">" in words:
            self._report(number, f"a tag that is unknown, open, nested or in words: {line!r}")
        if any(not content.strip() for content in STAGE.findall(line)):
            self._report(number, "<STAGE> is empty")
        if STAGE.search(line) and (self.kind != "PLAY" or not self.scene):
            self._report(number, "<STAGE> outside a scene")
        if not re.fullmatch(r"(?:<STAGE>[^<>]*</STAGE> ?)*[^<>]*", line):
            self._report(number, "<STAGE> does not open the line")
        if words.strip() and self.kind == "PLAY" and not self.speaker:
            self._report(number, "words without a speaker")
        self.words_before = bool(words.strip())


def _holds_words(line: str) -> bool:
    return bool(line) and not HEADING.fullmatch(line) and bool(STAGE.sub("", line).strip())


def plain(text: str) -> str:
    """Return tagged text for people: names with a colon, directions in brackets, no tags.

    It is meant for what a model writes as well, so unfinished or stray tags are simply dropped.
    """
    lines: list[str] = []
    for line in _CUT_MARK.sub("", text).split("\n"):
        found = HEADING.fullmatch(line.strip())
        if not found:
            line = STAGE.sub(lambda stage: f"[{stage[1]}]", line)
            lines.append(_ANY_MARK.sub("", line))
            continue
        name, content = found[1], found[2]
        if name == "SPEAKER":
            content += ":"
        elif name in ("PLAY", "POEM"):
            content = content.upper()
        elif ROMAN.fullmatch(content.split(".")[0]) and name != "PART":
            content = f"{name} {content}"
        if lines and lines[-1]:
            lines.append("")
        lines.append(content)
        if name not in ("SPEAKER",):
            lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
