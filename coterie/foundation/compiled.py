"""The border to compiled libraries: whatever fails behind it becomes a user error.

Libraries written in Rust raise bare `Exception`s and, where they panic, an exception that is no
`Exception` at all, after writing a trace of their own to standard error.
"""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.printable import printable

_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, CoterieError)
_LONGEST = 300  # characters of a library's message
_redirecting = threading.Lock()


@contextlib.contextmanager
def compiled(
    what: str, error: type[UserError] = UserError, hint: str | None = None
) -> Iterator[None]:
    """Turn every failure inside the block, panics included, into a user error.

    Args:
        what: the beginning of the message, to which the library's first line is added.

    Raises:
        UserError: anything but an interruption, the end of memory or one of our own errors.
    """
    try:
        yield
    except _PASSED_ON:
        raise
    except BaseException as failure:  # a panic is no Exception
        raise error(f"{what}: {reason(failure)}", hint=hint) from failure


def reason(failure: BaseException) -> str:
    """Return the first line of a library's message, safe to show and of bounded length."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    said = printable(lines[0] if lines else type(failure).__name__, keep="")
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "…"


@contextlib.contextmanager
def without_traces() -> Iterator[None]:
    """Keep the trace that a panic inside the block writes to standard error from the user.

    Whatever else is written meanwhile appears at the end of the block. Standard error is redirected
    for the whole process, so the block should be short.
    """
    with _redirecting, tempfile.TemporaryFile() as held:
        own = _redirect(held.fileno())
        try:
            yield
        except BaseException as failure:
            _restore(own)
            if isinstance(failure, (Exception, *_PASSED_ON)):
                _replay(held, own)
            raise
        else:
            _restore(own)
            _replay(held, own)
        finally:
            if own is not None:
                os.close(own)


def _redirect(descriptor: int) -> int | None:
    """Let standard error go to a descriptor; return its own, or None where there is none."""
    try:
        own = os.dup(2)
    except OSError:
        return None
    _flush()
    os.dup2(descriptor, 2)
    return own


def _restore(own: int | None) -> None:
    if own is not None:
        _flush()
        os.dup2(own, 2)


def _replay(held: IO[bytes], own: int | None) -> None:
    held.seek(0)
    while own is not None and (content := held.read(1 << 16)):
        with contextlib.suppress(OSError):
            os.write(own, content)


def _flush() -> None:
    with contextlib.suppress(OSError, AttributeError, ValueError):  # there may be none, or closed
        sys.stderr.flush()
