"""How sources are read: what the user said about columns, delimiters, limits and faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

from coterie.data.columns import Choice, Column, parse_template
from coterie.data.unpack import MAX_EXPANSION
from coterie.foundation.errors import DataError, nearest

OnError = Literal["stop", "skip"]
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_NAMES = {sign: name for name, sign in DELIMITERS.items()} | {"\\t": "tab"}

Tell = Callable[[str], None]


def named_delimiter(value: object) -> object:
    """Return the name of a delimiter that was given as the character itself."""
    return _NAMES.get(value, value) if isinstance(value, str) else value


Delimiter = Annotated[
    Literal["comma", "semicolon", "tab", "pipe"], BeforeValidator(named_delimiter)
]


@dataclass(frozen=True)
class Reading:
    """What decides the documents beside the files themselves.

    Attributes:
        column: which column of tables holds the text, or which field of the objects in one
            (`meta.text`); `None` decides it by the whole file.
        on_error: whether a row or file that cannot be used stops the reading or is left out.
        delimiter: what separates the fields of CSV and TSV; `None` looks.
        header: whether their first row names the columns; otherwise these are 0, 1, 2, ...
        max_expansion: how many times its size a compressed file may unpack to.
        template: how several columns make the text, such as `{title}\\n\\n{text}`.
    """

    column: str | None = None
    on_error: OnError = "stop"
    delimiter: str | None = None
    header: bool = True
    max_expansion: int = MAX_EXPANSION
    template: str | None = None

    def __post_init__(self) -> None:
        """Refuse a delimiter or a template that is none.

        Raises:
            DataError: there is no such delimiter, or the template names no columns.
        """
        if self.template is not None and self.column is not None:
            raise DataError("A template names its columns; leave out --column (data.column).")
        _ = self.choice
        name = named_delimiter(self.delimiter)
        if name is not None and name not in DELIMITERS:
            raise DataError(
                f"There is no delimiter “{self.delimiter}”; {nearest(str(name), DELIMITERS)}"
            )
        object.__setattr__(self, "delimiter", name)

    @property
    def choice(self) -> Choice | None:
        """What was asked for as the text of a row."""
        if self.template is not None:
            return parse_template(self.template)
        return None if self.column is None else Column(self.column)

    @property
    def identity(self) -> str:
        """All of it as one text: equal readings, equal texts."""
        return repr(astuple(self)[: None if self.template is not None else -1])
