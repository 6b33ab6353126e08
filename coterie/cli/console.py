"""Where the tool speaks: results on standard output, everything else on standard error."""

import codecs
import json
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.table import Table
from rich.text import Text

from coterie.visualise.console import SafeConsole, console, note, stderr

__all__ = ["SafeConsole", "console", "emit_json", "facts", "next_step", "note",
           "prepare_streams", "stderr"]  # fmt: skip

# What our own pages use, for encodings that lack it: a Windows console of cp1252, say.
_PLAIN = str.maketrans("−–—─…×·✓✗“”‘’→≥≤▁▂▃▄▅▆▇█", "---- x.vx\"\"''>><12345678")
# JSON escapes C0 by itself; these a terminal obeys as well, or UTF-8 cannot hold.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def prepare_streams() -> None:
    """Replace what the streams' encodings lack, instead of failing."""
    codecs.register_error("coterie", _spell)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="coterie")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded by its plain form, or by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    plain = missing.translate(_PLAIN)
    spelt = plain if plain.isascii() else plain.encode("ascii", "backslashreplace").decode("ascii")
    return spelt, error.end


def emit_json(value: Any) -> None:
    """Print a value as JSON on standard output, for other programs."""
    utf8 = _is_utf8(sys.stdout)
    text = json.dumps(value, indent=2, ensure_ascii=not utf8)
    if utf8:  # still one line of ASCII for each lone surrogate, which UTF-8 cannot hold
        text = _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    sys.stdout.write(text + "\n")


def _is_utf8(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name == "utf-8"


def facts(rows: Iterable[tuple[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def next_step(*commands: str) -> None:
    """Name the next useful command or commands, on standard error."""
    width = max(len(command.partition("  #")[0]) for command in commands)
    stderr.print()
    for number, command in enumerate(commands):
        call, _, comment = command.partition("  #")
        line = Text("Next: " if number == 0 else "      ").append(call.rstrip(), "hint")
        if comment:
            line.append(f"{'':<{width - len(call.rstrip())}}  #{comment}", "dim")
        stderr.print(line, soft_wrap=True)
