"""The gate for foreign text: consoles that show names, notes and samples and obey none of them.

No square bracket is taken for markup, no `:word:` for an emoji, and nothing that a terminal would
obey gets through. Colour and live displays appear only on a terminal or in a notebook; `NO_COLOR`
is respected.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from coterie.foundation.printable import printable

_THEME = Theme(
    {"hint": "cyan", "problem": "bold red", "dim": "dim", "good": "green", "heading": "bold"}
)


class SafeConsole(Console):
    """A console of rich that takes text as text and prints nothing a terminal would obey."""

    def __init__(self, **options: Any) -> None:
        super().__init__(theme=_THEME, highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Return a text for layout, made harmless while its width can still be counted."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of a renderable, foreign text made harmless."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


console = SafeConsole()
stderr = SafeConsole(stderr=True)


def note(sentence: str) -> None:
    """Tell something that was done unasked, on standard error."""
    stderr.print(f"Note: {sentence}", style="hint", soft_wrap=True)
