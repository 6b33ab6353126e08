"""Failures behind the border to compiled libraries, panics included, become user errors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from tokenizers import decoders

from coterie.foundation.compiled import compiled, without_traces
from coterie.foundation.errors import TokenizerError, UserError


def panic():
    """Let the library count below zero."""
    decoders.Strip(" ", 1, 3).decode([""])


def test_a_panic_is_a_user_error_without_a_trace(capfd):
    with (
        pytest.raises(TokenizerError, match=r"^It breaks: index out of bounds") as error,
        compiled("It breaks", TokenizerError, hint="Leave it."),
        without_traces(),
    ):
        panic()
    assert error.value.hint == "Leave it."
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "ours", [KeyboardInterrupt(), SystemExit(3), MemoryError(), UserError("x")]
)
def test_what_is_not_the_librarys_goes_through(ours):
    with pytest.raises(type(ours)) as error, compiled("It breaks"):
        raise ours
    assert error.value is ours


def test_messages_are_one_safe_line_of_bounded_length():
    with pytest.raises(UserError) as error, compiled("It breaks"):
        raise ValueError("\x1b[2J" + "y" * 10_000 + "\nand more")
    assert "\x1b" not in error.value.message
    assert "more" not in error.value.message
    assert len(error.value.message) < 400


@pytest.mark.parametrize("failure", [None, ZeroDivisionError, KeyboardInterrupt])
def test_what_others_write_meanwhile_is_not_lost(failure, capfd):
    with pytest.raises(failure) if failure else contextlib.nullcontext(), without_traces():
        os.write(2, b"from elsewhere\n")
        assert capfd.readouterr().err == ""
        if failure:
            raise failure
    assert capfd.readouterr().err == "from elsewhere\n"


def test_without_standard_error_nothing_is_redirected():
    """A program started without one must not break where traces are kept away."""
    code = (
        "import os; os.close(2)\n"
        "from coterie.foundation.compiled import without_traces\n"
        "with without_traces(): pass\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n"
