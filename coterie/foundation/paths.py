"""Paths that people write: `~` is their home directory."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from coterie.foundation.errors import UserError


def expand_home(text: str) -> str:
    """Return a path as text with a leading `~` or `~name` replaced by that home directory.

    Raises:
        UserError: the path is in the user's own home directory, and there is none.
    """
    if not text.startswith("~"):
        return text
    if text == "~" or text.startswith("~/"):
        return str(home()) + text[1:]
    return os.path.expanduser(text)  # a name that nobody has stays as it is


def home() -> Path:
    """Return the user's home directory.

    Raises:
        UserError: there is none.
    """
    found = os.path.expanduser("~")
    if not os.path.isabs(found) or os.environ.get("HOME") == "":
        raise UserError(
            "There is no home directory: HOME is not set.",
            hint="Set HOME, or name the whole path; COTERIE_CACHE says where prepared data are "
            "kept.",
        )
    return Path(found)


def _check(text: str) -> str:
    if not text:
        raise ValueError("a path cannot be empty")
    if "\0" in text:
        raise ValueError("a path cannot hold the character NUL")
    return expand_home(text)


PathText = Annotated[str, AfterValidator(_check)]
"""A field that holds a path, or a name that may be one, as text."""

UserPath = Annotated[
    Path, BeforeValidator(lambda path: _check(str(path)) if isinstance(path, str | Path) else path)
]
"""A field that holds a path."""
