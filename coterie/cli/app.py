"""The command `coterie`: registers the verbs, runs one, and turns errors into words for people.

Verbs are registered by import path, so that `coterie --help` imports none of them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownOptionError

import coterie

_HELP = """Train, measure and run small sparse mixture-of-experts language models.

First: coterie demo (three minutes from raw Shakespeare to text). Then:
coterie train quickstart data.source=my_book.txt
coterie generate latest "Once"

Targets are presets, run names, "latest" or paths. key=value changes the
experiment, flags change how the command behaves, --debug shows tracebacks.
"""


# verb or group -> (where its function lives, one line of help); a group holds verbs of its own.
VERBS = {
    "demo": ("coterie.cli.demo:demo", "From raw Shakespeare to text in three minutes."),
    "doctor": ("coterie.cli.doctor:doctor", "Check this machine and the installation."),
    "train": ("coterie.cli.train:train", "Train a preset or a settings file; resume a run."),
    "generate": ("coterie.cli.generate:generate", "Write text with a trained model."),
    "evaluate": ("coterie.cli.evaluate:evaluate", "Measure a run on its own data or any file."),
    "report": ("coterie.cli.report:report", "Make one page about one or several runs."),
}
GROUPS = {
    "presets": (
        "The ready-made configurations.",
        {
            "list": ("coterie.cli.presets:list_presets", "List the presets."),
            "show": ("coterie.cli.presets:show", "Show a preset's layers, counts and settings."),
            "copy": ("coterie.cli.presets:copy", "Copy a preset to a file, to change it."),
        },
    ),
    "data": (
        "Turn texts into token stores.",
        {
            "prepare": ("coterie.cli.data:prepare", "Tokenize texts into a store."),
            "inspect": ("coterie.cli.data:inspect", "Show what a store holds."),
            "verify": ("coterie.cli.data:verify", "Check every byte of stores."),
        },
    ),
    "tokenizer": (
        "Train and look into tokenizers.",
        {
            "train": ("coterie.cli.tokenizer:train", "Train byte-level BPE on texts."),
            "inspect": ("coterie.cli.tokenizer:inspect", "Show how a tokenizer splits a text."),
        },
    ),
    "model": (
        "Look into models; extend their context; exchange them.",
        {
            "show": ("coterie.cli.model:show", "Show what a model is made of and what it costs."),
            "extend": ("coterie.cli.model:extend", "Give a trained model a longer context."),
            "import": ("coterie.cli.exchange:import_model", "Make a run of a foreign model."),
            "export": ("coterie.cli.exchange:export_model", "Write a model for other programs."),
        },
    ),
    "runs": (
        "What has been trained here.",
        {
            "list": ("coterie.cli.runs:list_runs", "List the runs and how they went."),
            "show": ("coterie.cli.runs:show", "Show one run."),
        },
    ),
}


def build_app(called: Sequence[str] = ()) -> App:
    """Return the application with every verb registered by name.

    Args:
        called: the words of the call. The verb they name is imported anyway, so its help is its own
            docstring; all others are listed with their line.
    """
    verb, second = [*called, "", ""][:2]
    app = App(
        name="coterie",
        help=_HELP,
        version=coterie.__version__,
        # Markdown, in the verbs' docstrings, would cost a third of the time of `coterie --help`.
        help_format="markdown" if verb in VERBS or verb in GROUPS else "plaintext",
        help_flags=["--help", "-h"],
        version_flags=["--version"],
        result_action="return_value",
    )
    for name, (path, text) in VERBS.items():
        app.command(path, name=name, help=None if name == verb else text)
    for name, (text, verbs) in GROUPS.items():
        group = App(name=name, help=text)
        for inner, (path, line) in verbs.items():
            named = (name, inner) == (verb, second)
            group.command(path, name=inner, help=None if named else line)
        app.command(group)
    return app


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
        if isinstance(error, CoterieError):
            return _tell(error.message, error.hint, error.exit_code, debug)
        return _tell(
            f"Something went wrong inside Coterie: {type(error).__name__}: {error}",
            "Run the command again with --debug for the traceback; it helps a bug report.",
            1,
            debug,
        )
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
