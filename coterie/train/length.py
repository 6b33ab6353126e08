"""How often something is done in a run: steps apart, or epochs, one pass over the training text."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?")


def _known(every: int | str | None) -> int | str | None:
    if isinstance(every, str) and not in_epochs(every):
        raise ValueError("write a number of steps, or of epochs as in “2 epochs”, “0.5 epochs”")
    if isinstance(every, int) and every < 0:
        raise ValueError("input should be greater than or equal to 0")
    return every


Every = Annotated[int | str | None, AfterValidator(_known)]
"""Steps, or epochs as a text such as “2 epochs”; 0: only after the last step."""


def in_epochs(every: int | str | None) -> float:
    """Return how many epochs apart something is done; 0 where that is not said in epochs."""
    found = _EPOCHS.fullmatch(every) if isinstance(every, str) else None
    return 0.0 if found is None else float(found[1])
