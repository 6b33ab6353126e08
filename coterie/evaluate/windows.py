"""How a text longer than the context is cut so that every token is scored exactly once.

Windows of the model's context begin every `stride` tokens. Without overlap (stride = context) the
first tokens of a window are guessed from almost nothing; a smaller stride gives each token at least
context − stride tokens of past, at context / stride times the work.
"""

from __future__ import annotations

from typing import NamedTuple

from coterie.foundation.errors import UserError


class Window(NamedTuple):
    """Inputs are tokens [start, stop); of the targets (one later each) those from `scored` count.

    `scored` is a position in the text, not in the window.
    """

    start: int
    stop: int
    scored: int


def windows(num_tokens: int, context: int, stride: int | None = None) -> list[Window]:
    """Cut a text of `num_tokens` into windows that score every token but the first once.

    Args:
        num_tokens: tokens of the text, the one it begins from included.
        context: the most inputs of a window.
        stride: tokens between the starts of windows, 1 … context; context if None.

    Raises:
        UserError: the stride lies outside 1 … context.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UserError(
            f"The stride must lie between 1 and the model's context of {context:,}, not {stride:,}."
        )
    found, scored, start = [], 1, 0
    while scored < num_tokens:
        stop = min(start + context, num_tokens - 1)
        found.append(Window(start, stop, scored))
        scored, start = stop + 1, start + stride
    return found
