"""The one small tree of errors, each written for the reader: what is wrong, where, what to do.

A `UserError` means that the input can be mended by the person who gave it; the command line prints
its message and hint without a traceback and exits with 2. Anything else exits with 1.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class CoterieError(Exception):
    """An error with a message for the reader and, where one is known, a way out.

    Args:
        message: what is wrong and where, one sentence or a short list.
        hint: what to do or run next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(CoterieError, ValueError):
    """Input that cannot be used as it is; nothing was changed."""

    exit_code = 2


class SettingsError(UserError):
    """A configuration that does not validate."""


class DataError(UserError):
    """A source that cannot be read as text."""


class StoreError(UserError):
    """A token store that is missing, damaged or made for something else."""


class TokenizerError(UserError):
    """A tokenizer that is unknown, damaged or cannot represent the text."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or belongs to another model."""


class RunError(UserError):
    """A run that does not exist, exists already or cannot be resumed."""


class MissingExtraError(UserError):
    """An optional library that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; it belongs to the optional part “{extra}” of Coterie.",
            hint=f'Run: pip install "coterie[{extra}]"',
        )


class TrainingError(CoterieError):
    """Training that cannot go on, such as a gradient that is not finite."""


class Interrupted(CoterieError):  # noqa: N818 - an interruption is not a failure
    """Work stopped on request; everything worth keeping was saved."""

    exit_code = 130


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a phrase with the nearest valid choice and all of them, to end a message with."""
    known = sorted(set(choices))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean “{close[0]}”? " if close else ""
    if not known:
        return "there is nothing to choose from"
    listed = ", ".join(known[:24]) + (f", … ({len(known)} in all)" if len(known) > 24 else "")
    return f"{guess}choices: {listed}"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        MissingExtraError: it is not installed; the message holds the `pip install` line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(module, extra) from error
