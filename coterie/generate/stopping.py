"""Stop texts in a stream: what may be the start of one is held back until it is decided."""

from collections.abc import Sequence


class StopScanner:
    """Passes a stream of text on up to the first stop text, which never leaks, not even in part.

    Args:
        stops: the texts to stop at, none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop text stops everything"
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take the next piece of text; return what can be shown for certain.

        After a stop text was met, `stopped` is true and nothing more is returned.
        """
        if self.stopped:
            return ""
        pending = self._held + text
        found = [at for at in map(pending.find, self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return pending[: min(found)]
        keep = max((_overlap(pending, stop) for stop in self._stops), default=0)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def finish(self) -> str:
        """End the stream: return what was held back, since it did not become a stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a true beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
