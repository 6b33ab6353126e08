"""The shell of every page: one HTML file with its style and script inside, and small pieces."""

import datetime
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from coterie.foundation.printable import printable

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, head: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Return a whole page.

    Args:
        title: the window's title, plain text.
        head: HTML above the sections.
        sections: (anchor, heading, HTML) of each; empty ones are left out of page and menu.
    """
    shown = [section for section in sections if section[2]]
    menu = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in shown)
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{escape(name)}</h2>{html}</section>'
        for anchor, name, html in shown
    )
    # The policy lets the page load nothing at all: it works offline and cannot be made to call out.
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(printable(title))}</title>"
        f"<style>{_asset('style.css')}</style></head><body>"
        f'<header class="top">{head}<nav aria-label="Sections">{menu}</nav></header>'
        f"<main>{body}</main>"
        "<footer>Made by Coterie. This file is complete: it needs no network.</footer>"
        f"<script>{_asset('report.js')}</script></body></html>\n"
    )


def emblem() -> str:
    """Return the emblem: eight experts in a round, two of them at work."""
    dots = []
    for number in range(8):
        angle = math.tau * number / 8
        x, y = 12 + 8.6 * math.sin(angle), 12 - 8.6 * math.cos(angle)
        lit = ' class="lit"' if number in (1, 6) else ""
        dots.append(f'<circle{lit} cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    return f'<svg class="emblem" viewBox="0 0 24 24" aria-hidden="true">{"".join(dots)}</svg>'


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return headline figures. Each entry is (label, value, remark), plain text."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd><b>{escape(value)}</b>"
        f"<small>{escape(remark)}</small></dd></div>"
        for label, value, remark in entries
    )
    return f'<dl class="tiles">{cells}</dl>'


def pairs(entries: Iterable[tuple[str, object]]) -> str:
    """Return names and values in two columns, plain text."""
    rows = "".join(
        f"<dt>{escape(printable(str(name)))}</dt><dd>{escape(printable(str(value)))}</dd>"
        for name, value in entries
    )
    return f'<dl class="pairs">{rows}</dl>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain texts whose first column names the rows."""
    columns = "".join(f'<th scope="col">{escape(printable(name))}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(printable(row[0]))}</th>'
        + "".join(f"<td>{escape(printable(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def folded(summary: str, html: str) -> str:
    """Return HTML that is folded away behind a summary, plain text."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def moment(seconds: float) -> str:
    """Return a point in time (seconds since the epoch) as HTML, in universal time."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    text = f"{when.day} {when:%B %Y, %H:%M} UTC"
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{text}</time>'


def _asset(name: str) -> str:
    return files("coterie.visualise").joinpath(name).read_text(encoding="utf-8")
