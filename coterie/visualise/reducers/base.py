"""The protocol of a reducer: it is told the events of its kinds and keeps what a view shows."""

from typing import Any, ClassVar

from coterie.foundation.events import Event


class Reducer:
    """What a view keeps of the events that it reads; made without arguments.

    Its memory must not grow with the log: `Curves` and `Thinned` hold long histories.
    """

    kinds: ClassVar[tuple[type[Event], ...]] = ()
    """Which events `update` is called with."""

    def update(self, event: Any) -> None:
        """Take in one event of these kinds."""
        raise NotImplementedError

    def rewind(self, step: int) -> None:
        """Forget what happened beyond a step: the run was resumed from there."""
