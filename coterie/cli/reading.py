"""The flags that say how texts are read, the same for every verb that reads some."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from coterie.api.data import ReadingOptions, sources_of
from coterie.cli.console import stderr
from coterie.data.reading import OnError
from coterie.data.report import ReadingReport, were
from coterie.data.sources import Sources
from coterie.data.unpack import MAX_EXPANSION

_SHOWN = 100  # problems on a terminal


@Parameter(name="*")
@dataclass(frozen=True)
class ReadingFlags:
    """How texts are read; see `data.reading.Reading`."""

    column: Annotated[
        str | None,
        Parameter(help="Which column of tables holds the text, or field: meta.text."),
    ] = None
    on_error: Annotated[
        OnError,
        Parameter(help="At a row or file that cannot be used: stop, or skip it and report it."),
    ] = "stop"
    delimiter: Annotated[
        str | None,
        Parameter(
            help="Between the fields of CSV and TSV: comma, semicolon, tab or pipe; by default "
            "found by looking."
        ),
    ] = None
    header: Annotated[
        bool,
        Parameter(
            help="Whether the first row of CSV and TSV names the columns; else they are 0, 1, …",
            negative="--no-header",
        ),
    ] = True
    max_expansion: Annotated[
        int, Parameter(help="How many times its size a compressed file may unpack to.")
    ] = MAX_EXPANSION

    template: Annotated[
        str | None,
        Parameter(help="Several columns of tables as one text, such as '{title}\\n\\n{text}'."),
    ] = None
    clean: Annotated[
        tuple[str, ...],
        Parameter(help="How texts are cleaned first: whitespace, or an import path."),
    ] = ()

    def options(self) -> ReadingOptions:
        """Return the flags as the options of `coterie.prepare`."""
        return ReadingOptions(**asdict(self))

    def sources(self, inputs: tuple[str, ...]) -> Sources:
        """Return the documents of some inputs.

        Raises:
            DataError: an input does not exist or cannot be read.
            UserError: there is no such way to clean.
        """
        return sources_of(inputs, **self.options())


def tell_reading(skipped: int, problems: list[str], notes: list[str], everything: str) -> None:
    """Say what was left out and what was chosen unasked.

    Args:
        skipped: how many rows and files were left out.
        problems: what they were, and why.
        notes: what was chosen.
        everything: a command that lists all of the problems.
    """
    for note in notes:
        stderr.print(f"Note: {note}.", soft_wrap=True)
    if not skipped:
        return
    stderr.print(f"{were(skipped)} left out:", style="problem")
    for problem in problems[:_SHOWN]:
        stderr.print(f"  {problem}", soft_wrap=True)
    if len(problems) > _SHOWN:
        stderr.print(f"  … and {len(problems) - _SHOWN:,} more: {everything}", soft_wrap=True)


def reading_figures(report: ReadingReport) -> dict[str, Any]:
    """Return the same for `--json`."""
    return {"skipped": report.skipped, "problems": report.problems, "notes": report.notes}
