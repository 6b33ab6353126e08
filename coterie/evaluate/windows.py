"""How a text longer than a window is cut so that every token is scored exactly once.

Windows begin every `stride` tokens. *Disjoint* windows (stride = window, the default) follow one
another, and the first tokens of each are guessed from almost nothing; *sliding* windows (a smaller
stride) give each token at least window − stride tokens of past, at window / stride times the work.

A window of n inputs scores n targets, the last of which lies beyond it. The recipe of
`transformers`, whose windows hold inputs and targets together, is window = max_length − 1 here.
"""

from collections.abc import Iterable
from typing import NamedTuple

from coterie.foundation.errors import UserError


class Window(NamedTuple):
    """Inputs are tokens [start, stop); of the targets (one later each) those from `scored` count.

    `scored` is a position in the text, not in the window.
    """

    start: int
    stop: int
    scored: int


def all_windows(
    lengths: Iterable[int], window: int, stride: int | None = None
) -> list[tuple[int, Window]]:
    """Cut texts of so many tokens; return each window with its text's number, the longest first.

    Raises:
        UserError: as `windows` does.
    """
    cuts = [
        (number, cut)
        for number, length in enumerate(lengths)
        for cut in windows(length, window, stride)
    ]
    return sorted(cuts, key=lambda each: each[1].start - each[1].stop)


def windows(num_tokens: int, window: int, stride: int | None = None) -> list[Window]:
    """Cut a text of `num_tokens` into windows that score every token but the first once.

    Args:
        num_tokens: tokens of the text, the one it begins from included.
        window: the most inputs of a window.
        stride: tokens between the starts of windows, 1 … window; window if None.

    Raises:
        UserError: the window is empty, or the stride lies outside 1 … window.
    """
    if window < 1:
        raise UserError(f"A window must hold at least one token, not {window:,}.")
    stride = window if stride is None else stride
    if not 1 <= stride <= window:
        raise UserError(
            f"The stride must lie between 1 and the window of {window:,} tokens, not {stride:,}.",
            hint="Equal to the window: disjoint windows. Smaller: sliding ones, with more past.",
        )
    found, scored, start = [], 1, 0
    while scored < num_tokens:
        stop = min(start + window, num_tokens - 1)
        found.append(Window(start, stop, scored))
        scored, start = stop + 1, start + stride
    return found
