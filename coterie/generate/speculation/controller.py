"""Whether guessing pays for one text, by what its steps have cost and gained so far."""

_TRIALS = 4  # calls with guesses before they are judged
_SHARE = 0.2  # of the newest measurement in the averages
_SHORTEST_REST, _LONGEST_REST = 32, 1024  # steps without guesses after they did not pay


class Controller:
    """Compares the tokens a second with guesses and without.

    Guesses that do not pay are left out for a while, each time for twice as long. Two steps without
    guesses come first, and the faster one counts: the other may have made room. Which steps guess
    depends on the clock; what they write does not.
    """

    def __init__(self) -> None:
        self._plain: float | None = None  # seconds of a step, which gains one token
        self._seconds = self._gained = 0.0  # of a step with guesses
        self._trials = self._plains = 0
        self._resting, self._rest = 0, _SHORTEST_REST

    @property
    def wants(self) -> bool:
        """Whether the next step should guess."""
        return self._plains > 1 and not self._resting

    def note(self, seconds: float, gained: int, *, guessed: bool) -> None:
        """Take note of a step."""
        if not guessed:
            first = self._plain is None or (self._plains == 1 and seconds < self._plain)
            self._plain = seconds if first else _mixed(self._plain, seconds)
            self._plains += 1
            self._resting = max(self._resting - 1, 0)
            return
        assert self._plain is not None, "a step without guesses comes first"
        first = self._trials == 0
        self._seconds = _mixed(None if first else self._seconds, seconds)
        self._gained = _mixed(None if first else self._gained, float(gained))
        self._trials += 1
        if self._trials < _TRIALS:
            return
        if self._gained * self._plain < self._seconds:
            self._trials, self._resting = 0, self._rest
            self._rest = min(self._rest * 2, _LONGEST_REST)
        else:
            self._rest = _SHORTEST_REST


def _mixed(average: float | None, newest: float) -> float:
    return newest if average is None else average + _SHARE * (newest - average)
