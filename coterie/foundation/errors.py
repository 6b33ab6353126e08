"""The one small tree of errors, each written for the reader: what is wrong, where, what to do.

A `UserError` means that the input can be mended by the person who gave it; the command line prints
its message and hint without a traceback and exits with 2. Anything else exits with 1.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

from coterie.foundation.printable import printable
from coterie.foundation.synonyms import meant_by


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


def nearest(name: str, choices: Iterable[str], further: Iterable[str] = ()) -> str:
    """Return a phrase with the nearest valid choice and all of them, to end a message with.

    Args:
        name: what was given instead.
        further: names that are not listed, but proposed where one of them is surely meant.
    """
    known, further = sorted(set(choices)), list(further)
    found = meant_by(name, known) or meant_by(name, further)
    if not found and name:
        found = difflib.get_close_matches(name, [each for each in known if each], n=1, cutoff=0.5)
    if not found and name:
        ends = {each.rpartition(".")[2]: each for each in reversed(further)}
        found = [ends[end] for end in difflib.get_close_matches(name, ends, n=1, cutoff=0.8)]
    guess = " or ".join(f"“{printable(each, '')}”" for each in found[:3])
    guess = f"did you mean {guess}? " if guess else ""
    if not known:
        return guess.strip() or "there is nothing to choose from"
    listed = ", ".join(printable(each, "") or "“”" for each in known[:24])
    listed += f", … ({len(known)} in all)" if len(known) > 24 else ""
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
