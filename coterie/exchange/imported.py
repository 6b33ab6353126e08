"""What an import yields, whichever format it came from, and the error of everything that cannot be.

Importers build the whole model in memory and write nothing; what is wrong with the source is an
`ExchangeError` before anything of ours exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

_LONGEST = 60  # characters of a value in a message


class ExchangeError(UserError):
    """A foreign model that cannot be read, or one of ours that a foreign format cannot hold.

    Messages quote names out of foreign files; what a terminal would obey is written out.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(printable(message), hint)


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere as one of ours.

    Attributes:
        decoder: in evaluation mode on the CPU.
        tokenizer: the one that came along; None: there was none.
        architecture: what its makers call its kind, such as `llama`.
        source: the folder or file it came from.
        notes: sentences on what was left out or changed on the way.
    """

    decoder: Decoder
    tokenizer: Tokenizer | None
    architecture: str
    source: Path
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))


def reasons_of(error: ValidationError) -> list[str]:
    """Return what is wrong with settings, each thing in words."""
    return [each["msg"].removeprefix("Value error, ") for each in error.errors()]


def shown(value: Any) -> str:
    """Return a foreign value as it may stand in a message: safe, and of bounded length."""
    text = printable(repr(value), keep="")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
