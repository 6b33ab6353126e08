"""The command `coterie`: registers the verbs, runs one, and prints errors for people.

Verbs are registered by import path, so that `coterie --help` imports none of them.
"""

import contextlib
import errno
import faulthandler
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

import coterie
from coterie.cli.verbs import GROUPS, VERBS, Verb

_HELP = """Train, measure and run small sparse mixture-of-experts language models.

First: coterie demo (three minutes from raw Shakespeare to text). Then:
coterie train quickstart data.source=my_book.txt
coterie generate latest "Once"

Targets are presets, run names, "latest" or paths. key=value changes the
experiment, flags change how the command behaves, --debug shows tracebacks.
"""


def build_app(called: Sequence[str] = ()) -> App:
    """Return the application with every verb registered by name.

    Args:
        called: the words of the call. The verb they name is imported anyway, so its help is its own
            docstring; all others are listed with their line.
    """
    first, second = [*called, "", ""][:2]
    app = App(
        name="coterie",
        help=_HELP,
        version=coterie.__version__,
        # Markdown, in the verbs' docstrings, would cost a third of the time of `coterie --help`.
        help_format="markdown" if first in VERBS or first in GROUPS else "plaintext",
        help_flags=["--help", "-h"],
        version_flags=["--version"],
        result_action="return_value",
        # A switch that is off needs no --no-, and nobody needs to be told that it is off.
        default_parameter=Parameter(negative=(), show_default=_shown_default),
    )
    for name, verb in VERBS.items():
        _register(app, name, verb, called=name == first)
    for name, (text, verbs) in GROUPS.items():
        examples = [verb.examples[0] for verb in verbs.values()][:2]
        group = App(name=name, help=text, help_epilogue=_epilogue(examples))
        for inner, verb in verbs.items():
            _register(group, inner, verb, called=(name, inner) == (first, second))
        app.command(group)
    return app


def _register(app: App, name: str, verb: Verb, *, called: bool) -> None:
    """Give an application a verb, which is imported when it is called."""
    epilogue = _epilogue(verb.examples)
    app.command(verb.path, name=name, help=None if called else verb.line, help_epilogue=epilogue)


def _shown_default(value: object) -> str | None:
    return None if value is False or value in ((), None) else str(value)


def _epilogue(examples: Sequence[str]) -> str:
    """Return examples as they end a page of help, each a line of its own."""
    return "Examples:\n\n" + "\n".join(f"    {each}" for each in examples)


def _check_verb(words: list[str]) -> None:
    """Refuse an unknown verb with the nearest one, before anything is imported for it.

    Raises:
        UserError: there is no such verb.
    """
    known, prefix = {*VERBS, *GROUPS}, "coterie"
    for word in words[:2]:
        if word.startswith("-"):
            return
        if word not in known:
            from coterie.foundation.errors import UserError, nearest

            raise UserError(
                f"There is no “{prefix} {word}”; {nearest(word, known)}",
                hint=f"Run: {prefix} --help",
            )
        if word not in GROUPS:
            return
        known, prefix = set(GROUPS[word][1]), f"{prefix} {word}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 the user's input, 130 interrupted."""
    from coterie.cli.console import prepare_streams

    with contextlib.suppress(ValueError, OSError):
        faulthandler.enable()  # a mapped file that is cut short ends in a signal
    prepare_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    debug = "--debug" in arguments or os.environ.get("COTERIE_DEBUG") == "1"
    words = [word for word in arguments if word != "--debug"]
    try:
        _check_verb(words)
        result = build_app(words)(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _tell(*_refusal(error), 2, debug)
    except KeyboardInterrupt:
        return _tell("Interrupted.", None, 130, debug)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of our output went away
        return 0
    except Exception as error:
        from coterie.foundation.errors import CoterieError

        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            hint = "Free some space (df -h shows where), then run the same command again."
            return _tell(f"The disk is full: {error}", hint, 2, debug)
        if isinstance(error, MemoryError):
            hint = "Divide it into smaller files or shorter lines, or give the process more memory."
            said = "Memory does not suffice for what this command reads or makes at once."
            return _tell(said, hint, 2, debug)
        if getattr(error, "told", False):  # by another process of this run
            return 1
        if isinstance(error, CoterieError):
            return _tell(error.message, error.hint, error.exit_code, debug)
        # A note names what of the user's own code was called.
        where = " ".join(getattr(error, "__notes__", ())) or "Something went wrong inside Coterie:"
        hint = "Run the command again with --debug for the traceback; it helps a bug report."
        return _tell(f"{where} {type(error).__name__}: {error}", hint, 1, debug)
    return result if isinstance(result, int) else 0


def _refusal(error: CycloptsError) -> tuple[str, str | None]:
    """Return what is wrong with the flags of a call, and what to do."""
    verb = " ".join(error.command_chain or ())
    if isinstance(error, UnknownOptionError):
        from coterie.cli.flags import unknown_flag

        flags = (name for argument in error.argument_collection for name in argument.names)
        word = "=".join(filter(None, (error.token.keyword, error.token.value)))
        told = unknown_flag(word, verb, flags)
        return told.message, told.hint
    return str(error), f"Run: coterie {verb} --help"


def _tell(message: str, hint: str | None, code: int, debug: bool) -> int:
    """Print an error for the reader and return the exit code."""
    from coterie.cli.console import stderr

    if debug:
        import traceback

        stderr.print(traceback.format_exc(), soft_wrap=True)
    style = "problem" if code != 130 else "heading"
    stderr.print(message, style=style, soft_wrap=True)
    if hint:
        stderr.print(hint, style="hint", soft_wrap=True)
    return code
