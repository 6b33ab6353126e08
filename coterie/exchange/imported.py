"""What an import returns, whatever the format, and the error of exchange.

Importers build the whole model in memory and write nothing.
"""

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

    Messages quote names from foreign files, so control characters are escaped.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(printable(message), hint)


@dataclass(frozen=True)
class Imported:
    """A foreign model as one of ours.

    Attributes:
        decoder: in evaluation mode on the CPU.
        tokenizer: of the same source; None: it has none.
        architecture: its name in the source, such as `llama`.
        source: the folder or file.
        notes: sentences on what was left out or converted.
    """

    decoder: Decoder
    tokenizer: Tokenizer | None
    architecture: str
    source: Path
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))


def reasons_of(error: ValidationError) -> list[str]:
    """Return the messages of a validation error of settings."""
    return [each["msg"].removeprefix("Value error, ") for each in error.errors()]


def shown(value: Any) -> str:
    """Return a foreign value for a message: escaped, and of bounded length."""
    text = printable(repr(value), keep="")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
