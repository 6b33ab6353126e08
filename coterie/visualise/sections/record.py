"""What happened besides training: starts, ends, notices, checkpoints, events of unknown kinds."""

from html import escape

from coterie.foundation.printable import printable
from coterie.visualise.figures import duration, size
from coterie.visualise.page import folded, moment, table
from coterie.visualise.reducers.course import Checkpoints, Course, Notices, Unread
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def record_section(series: Series) -> str:
    lines: list[tuple[float, str, str]] = []
    for start in series.starts:
        resumed = start.resumed_from
        text = "The run began." if resumed is None else f"Resumed from step {resumed:,}."
        lines.append((start.time, "info", text))
    lines += [(d.time, "warning", f"{d.path} is damaged: {d.problem}") for d in series.damaged]
    lines += [(n.time, n.level, n.message) for n in series.notices]
    if series.ended:
        end = series.ended
        text = f"The run {end.status} at step {end.step:,} after {duration(end.seconds)}."
        lines.append((end.time, "info", f"{text} {end.message}".strip()))
    lines.sort(key=lambda line: line[0])
    items = "".join(
        f'<li class="{level}">{moment(when)} <span>{escape(printable(text))}</span></li>'
        for when, level, text in lines
    )
    saved = table(
        "Checkpoints saved",
        ("step", "size", "time to save", "place"),
        [(f"{s.step:,}", size(s.bytes), duration(s.seconds), s.path) for s in series.saved],
    )
    number = series[Checkpoints].saved.count
    words = f"{number:,} checkpoint{'s' * (number != 1)} saved"
    listed = folded(words, saved) if series.saved else ""
    return f'<ol class="record">{items}</ol>{_unknown(series)}{listed}'


def _unknown(series: Series) -> str:
    """Return which kinds of events no imported package declares."""
    kinds = [f"{number:,} of “{kind}”" for kind, number in series[Unread].unknown.items()]
    if not kinds:
        return ""
    text = f"Not shown, for nothing here declares their kind: {', '.join(kinds)}."
    return f'<p class="note">{escape(printable(text))}</p>'


RECORD = Section("record", "Record", (Course, Notices, Checkpoints, Unread), record_section)
