"""How the rows of a CSV or TSV file are delimited: given, or found by trying its first lines.

A delimiter is taken if the user named it or the beginning of the file agrees with it and with no
other. What the ending of the name promises (a comma, a tab) wins only where it fits.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.data.columns import Choice
from coterie.data.kinds import kind_of
from coterie.data.reading import DELIMITERS, Reading, Tell
from coterie.data.tables import DEFAULT_COLUMN, ColumnError, choose_column, read_lines
from coterie.foundation.errors import DataError

_PROBED_CHARACTERS = 1 << 20
_PROBED_ROWS = 1000
_LONGEST_NAME = 48
_USUAL = {".tsv": "tab"}


@dataclass(frozen=True)
class Layout:
    """How a table is written and what is read of it.

    Attributes:
        delimiter: its name.
        quoted: whether quotation marks enclose fields; otherwise they are text.
        names: of the columns.
        choice: what is read of them.
    """

    delimiter: str
    quoted: bool
    names: list[str]
    choice: Choice

    def reader(self, lines: Iterable[str]) -> csv.reader:  # type: ignore[valid-type]
        """Return the library's reader over some lines."""
        return _reader(lines, self.delimiter, self.quoted)


@dataclass(frozen=True)
class _Trial:
    """What the beginning of the file is if a delimiter is the right one.

    Attributes:
        header: the first row.
        widths: fields of each row after it.
        broken: whether a quotation mark stands where none may.
    """

    delimiter: str
    quoted: bool
    header: list[str]
    widths: list[int]
    broken: bool

    @property
    def fits(self) -> bool:
        return not self.broken and all(width == len(self.header) for width in self.widths)

    @property
    def mostly_fits(self) -> bool:
        right = sum(width == len(self.header) for width in self.widths)
        return right * 2 >= len(self.widths)


def find_layout(path: Path, reading: Reading, tell: Tell) -> Layout | None:
    """Return how a table is to be read, or `None` if it holds no row at all.

    Raises:
        ColumnError: several delimiters or columns could be meant.
    """
    lines, whole = _beginning(path, reading)
    asked = [reading.delimiter] if reading.delimiter else list(DELIMITERS)
    trials = [trial for name in asked if (trial := _try(lines, whole, name))]
    if not trials:
        return None
    wanted = reading.choice.needs(())[0] if reading.choice else DEFAULT_COLUMN
    usual = _USUAL.get(kind_of(path).ending, "comma")
    sought = wanted if reading.header else None
    chosen = trials[0] if reading.delimiter else _choose(path, trials, sought, usual)
    if not chosen.header:
        raise DataError(f"{path}:1: the first row cannot be read: its quotation marks are broken.")
    if chosen.delimiter != usual and not reading.delimiter:
        tell(f"the fields are separated by “{chosen.delimiter}”, as its rows are")
    if not chosen.quoted:
        tell("quotation marks are part of the text, as they do not enclose fields")
    names = [name.strip() for name in chosen.header]
    if not reading.header:
        names = [str(number) for number in range(len(names))]
    elif wanted not in names:
        _refuse_text_as_names(path, names, reading)
    choice = choose_column(path, reading, names, names, tell)
    if twice := [name for name in choice.needs(names) if names.count(name) > 1]:
        raise ColumnError(f"{path} has several columns called “{twice[0]}”.")
    return Layout(chosen.delimiter, chosen.quoted, names, choice)


def _beginning(path: Path, reading: Reading) -> tuple[list[str], bool]:
    """Return the first lines of a file, and whether they are all of it."""
    lines: list[str] = []
    room = _PROBED_CHARACTERS
    try:
        for line in read_lines(path, reading):
            room -= len(line or "")
            if line is None or (room < 0 and lines):
                return lines, False
            if line.strip("\n") or lines:
                lines.append(line)
    except DataError:
        if not lines:
            raise
        return lines, False  # damage is reported where it is reached
    return lines, True


def _try(lines: list[str], whole: bool, delimiter: str) -> _Trial | None:
    """Return how the beginning looks with a delimiter; quotes are tried both ways around tabs."""
    trial = _trial(lines, whole, delimiter, quoted=True)
    if delimiter == "tab" and (trial is None or not trial.fits):
        plain = _trial(lines, whole, delimiter, quoted=False)
        if plain is not None and len(plain.header) > 1 and plain.fits:
            return plain
    return trial


def _trial(lines: list[str], whole: bool, delimiter: str, *, quoted: bool) -> _Trial | None:
    rows: list[list[str]] = []
    broken = False
    reader = _reader(lines, delimiter, quoted)
    try:
        for row in itertools.islice(reader, _PROBED_ROWS):
            if row:
                rows.append(row)
    except csv.Error:
        broken = whole or reader.line_num < len(lines) or not rows
    if not rows and not broken:
        return None
    header, *others = rows or [[]]
    return _Trial(delimiter, quoted, header, [len(row) for row in others], broken)


def _choose(path: Path, trials: Sequence[_Trial], wanted: str | None, usual: str) -> _Trial:
    """Return the trial that the beginning of the file speaks for.

    Raises:
        ColumnError: it speaks for none or for several.
    """
    default = next((trial for trial in trials if trial.delimiter == usual), trials[0])
    several = [trial for trial in trials if len(trial.header) > 1]
    if not several:
        believed = wanted is None or [name.strip() for name in default.header] == [wanted]
        _refuse_hidden_fields(path, default, trials, believed=believed)
        return default
    named = [trial for trial in several if wanted in [*map(str.strip, trial.header)]]
    candidates = named or several
    if len(candidates) == 1 and (named or candidates[0].mostly_fits):
        return candidates[0]
    fitting = [trial for trial in candidates if trial.fits]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and default in candidates:
        return default
    raise _which(path, [trial.delimiter for trial in fitting or candidates])


def _refuse_hidden_fields(
    path: Path, default: _Trial, trials: Sequence[_Trial], *, believed: bool
) -> None:
    """Ask about a table of one column whose cells hold delimiters.

    A column with the wanted name is believed unless every row is cut alike by another delimiter.
    """
    cutting = []
    for trial in trials:
        widths = set(trial.widths)
        alike = len(trial.widths) > 1 and len(widths) == 1 and trial is not default
        if widths - {1} and (alike or not believed):
            cutting.append(trial.delimiter)
    if not cutting:
        return
    kept = [trial.delimiter for trial in trials if trial.delimiter not in cutting]
    way_out = f"--delimiter {cutting[0]} (data.delimiter={cutting[0]})"
    if kept:
        one = default.delimiter if default.delimiter in kept else kept[0]
        way_out = f"--delimiter {one} (data.delimiter={one}) if it is one column, else {way_out}"
    raise ColumnError(
        f"What separates the fields of {path}? Its first row is one column, but there are rows "
        f"that a delimiter cuts ({', '.join(cutting)}).",
        hint=f"Say it: {way_out}.",
    )


def _which(path: Path, delimiters: Sequence[str]) -> ColumnError:
    first = delimiters[0]
    return ColumnError(
        f"What separates the fields of {path}? It could be: {', '.join(delimiters)}.",
        hint=f"Say it: --delimiter {first} (data.delimiter={first}).",
    )


def _refuse_text_as_names(path: Path, names: list[str], reading: Reading) -> None:
    """Ask about a first row that reads like text, which would be lost as names of columns."""
    if reading.choice is not None or all(map(_is_name, names)):
        return
    odd = next(name for name in names if not _is_name(name))
    shown = odd if len(odd) <= _LONGEST_NAME else odd[:_LONGEST_NAME] + "…"
    raise ColumnError(
        f"Does the first row of {path} name the columns? It holds “{shown}”.",
        hint="If it is text: --no-header (data.header=false), and the columns are 0, 1, 2, …; if "
        "it is a name: --column NAME (data.column=NAME).",
    )


def _is_name(cell: str) -> bool:
    """Whether a cell of the first row can be the name of a column."""
    word = cell.strip()
    return (
        0 < len(word) <= _LONGEST_NAME
        and len(word.split()) <= 4
        and "\n" not in word
        and word[-1] not in ".!?,;:…"
        and not word.lstrip("+-").replace(".", "", 1).isdigit()
    )


def _reader(lines: Iterable[str], delimiter: str, quoted: bool) -> csv.reader:  # type: ignore[valid-type]
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=DELIMITERS[delimiter], quoting=quoting, strict=True)
