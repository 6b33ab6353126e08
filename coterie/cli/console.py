"""Where the tool speaks: results on standard output, everything else on standard error.

Colour and live displays appear only on a terminal; `NO_COLOR` is respected.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.theme import Theme

_THEME = Theme(
    {"hint": "cyan", "problem": "bold red", "dim": "dim", "good": "green", "heading": "bold"}
)

console = Console(theme=_THEME, highlight=False)
stderr = Console(theme=_THEME, highlight=False, stderr=True)


def emit_json(value: Any) -> None:
    """Print a value as JSON on standard output, for other programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def next_step(*commands: str) -> None:
    """Name the next useful command or commands, on standard error."""
    width = max(len(command.partition("  #")[0]) for command in commands)
    stderr.print()
    for number, command in enumerate(commands):
        call, _, comment = command.partition("  #")
        lead = "Next:" if number == 0 else "     "
        text = f"{lead} [hint]{escape(f'{call:<{width}}')}[/hint]"
        if comment:
            text += f"  [dim]#{escape(comment)}[/dim]"
        stderr.print(text, soft_wrap=True)
