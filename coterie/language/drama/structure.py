"""What a play and a poem are made of, free of any file format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the source edition breaks it: a verse, or a row of prose."""

    text: str


@dataclass(frozen=True, slots=True)
class Direction:
    """A stage direction; an inline one belongs to the beginning of the line that follows it."""

    text: str
    inline: bool = False


@dataclass(frozen=True, slots=True)
class StanzaBreak:
    """A gap between two lines of one speech: a song's stanzas, a letter's paragraphs."""


@dataclass(frozen=True, slots=True)
class Speech:
    """The words of one speaker, with the directions that interrupt them."""

    speaker: str
    body: tuple[Line | Direction | StanzaBreak, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene: a Roman number or PROLOGUE / EPILOGUE as its label, and where it is set."""

    label: str
    place: str
    body: tuple[Speech | Direction, ...]


@dataclass(frozen=True, slots=True)
class Act:
    """An act: a Roman number or INDUCTION as its label, None for what precedes the first act."""

    label: str | None
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of a source that the reader could not place, counted from 1."""

    line: int
    text: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}: {self.text!r}"


@dataclass(frozen=True, slots=True)
class Play:
    """A whole play, with an account of what the reader did not understand or left out.

    `problems` are lines that no rule recognised; `removed` are lines left out by a rule, such as
    running titles; `rewritten` are lines whose letters are in the tags in another form.
    """

    title: str
    acts: tuple[Act, ...]
    problems: tuple[Problem, ...] = ()
    removed: tuple[Problem, ...] = ()
    rewritten: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A numbered or named part of a poem; None names the only or unnamed one."""

    name: str | None
    stanzas: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Poem:
    """A poem or a cycle of poems, with the same account as a play."""

    title: str
    parts: tuple[Part, ...]
    problems: tuple[Problem, ...] = ()
    removed: tuple[Problem, ...] = ()
    rewritten: tuple[Problem, ...] = ()
