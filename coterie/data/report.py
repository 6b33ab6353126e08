"""What reading the sources left out and why, and what it chose by default."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from coterie.foundation.printable import printable

LISTED = 10_000  # problems listed one by one; further ones are counted per file


@dataclass
class ReadingReport:
    """How one reading of the sources went.

    Attributes:
        documents: documents handed out.
        empty_files: files in folders that hold nothing.
        skipped: rows, files and folders left out because they could not be used.
    """

    documents: int = 0
    empty_files: int = 0
    skipped: int = 0
    _problems: list[str] = field(default_factory=list)
    _further: Counter[str] = field(default_factory=Counter)
    _notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, problem: str, path: Path | str) -> None:
        """Count one thing left out of a file or folder."""
        self.skipped += 1
        if len(self._problems) < LISTED:
            self._problems.append(printable(problem, keep=""))
        else:
            self._further[printable(path, keep="")] += 1

    def note(self, note: str, path: Path | str) -> None:
        """Record a default that was chosen for a file, or what was done with it unrequested."""
        files = self._notes.setdefault(printable(note, keep=""), [])
        name = printable(path, keep="")
        if name not in files[-1:]:
            files.append(name)

    @property
    def problems(self) -> list[str]:
        """What was left out, where and why: each one, or a file's number of further ones."""
        further = (f"{path}: {count:,} more" for path, count in self._further.items())
        return [*self._problems, *further]

    @property
    def notes(self) -> list[str]:
        """Defaults chosen and files passed over, one line for all files that share it."""
        lines = [f"{_names(files)}: {note}" for note, files in self._notes.items()]
        if self.empty_files:
            lines.append(f"{were(self.empty_files, 'empty file', 'empty files')} passed over")
        return lines


def _names(files: list[str]) -> str:
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return files[0] + more


def were(count: int, one: str = "row or file", several: str = "rows or files") -> str:
    """Return how many things were, as the beginning of a sentence."""
    return f"1 {one} was" if count == 1 else f"{count:,} {several} were"
