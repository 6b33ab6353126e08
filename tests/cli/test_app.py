"""The command itself: verbs, errors, exit codes, and a quick start."""

from __future__ import annotations

import errno
import importlib
import shlex
import subprocess
import sys

import pytest

from coterie.cli import app, console
from coterie.cli.verbs import GROUPS, VERBS
from coterie.foundation.errors import Interrupted, TrainingError, UserError

EVERY_VERB = dict(VERBS) | {
    f"{group} {name}": verb for group, (_, verbs) in GROUPS.items() for name, verb in verbs.items()
}


@pytest.mark.parametrize("name", EVERY_VERB)
def test_help_of_a_verb_is_its_docstring_and_ends_with_two_calls_that_it_takes(name, capsys):
    verb = EVERY_VERB[name]
    module, _, function = verb.path.partition(":")
    function = getattr(importlib.import_module(module), function)
    assert verb.line.endswith(".")
    assert app.run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: coterie" in shown
    assert function.__doc__.split(":")[0].split(".")[0] in " ".join(shown.split())
    assert "--no-" not in shown.replace("--no-header", "")
    assert [line.strip() for line in shown.splitlines() if line.strip()][-2:] == [*verb.examples]
    for example in verb.examples:
        first, *words = shlex.split(example)
        assert first == "coterie"
        assert example.startswith(f"coterie {name}")
        called, bound, *_ = app.build_app(words).parse_args(
            words, exit_on_error=False, print_error=False
        )
        assert called is function
        assert bound.arguments or len(words) == len(name.split())


def test_help_lists_every_verb(capsys):
    assert app.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*VERBS, *GROUPS))


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_verbs(group, capsys):
    assert app.run([group, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in GROUPS[group][1])


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from coterie.cli.app import run; run(['--help']);"
        "heavy = {'torch', 'numpy', 'pyarrow', 'matplotlib', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "guess"),
    [(["trian"], "train"), (["data", "verfy"], "verify"), (["presets", "lst"], "list")],
)
def test_unknown_verbs_get_the_nearest_one(words, guess, capsys):
    assert app.run(words) == 2
    assert f"did you mean “{guess}”" in " ".join(capsys.readouterr().err.split())


def test_unknown_flags_are_the_users_error(capsys):
    assert app.run(["runs", "list", "--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("bad [input]", hint="try"), 2), (TrainingError("x"), 1), (Interrupted("x"), 130),
     (KeyboardInterrupt(), 130), (RuntimeError("boom"), 1)],
)  # fmt: skip
def test_errors_become_words_and_exit_codes(error, code, monkeypatch, capsys):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(app, "_check_verb", fail)
    assert app.run(["runs", "list"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    if isinstance(error, UserError):
        assert "bad [input]" in shown
        assert "try" in shown


def test_what_a_users_own_code_raised_is_not_called_ours(monkeypatch, capsys):
    def fail(_words):
        error = RuntimeError("boom")
        error.add_note("The constraint Rhymes failed.")
        raise error

    monkeypatch.setattr(app, "_check_verb", fail)
    assert app.run(["runs", "list"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("The constraint Rhymes failed. RuntimeError: boom\n")
    assert "inside Coterie" not in shown


def test_a_full_disk_under_the_output_is_the_users_to_mend(monkeypatch, capsys):
    def fail(_words):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(app, "_check_verb", fail)
    assert app.run(["runs", "list"]) == 2
    assert "disk is full" in capsys.readouterr().err


def test_too_little_memory_is_told_in_words(monkeypatch, capsys):
    def fail(_words):
        raise MemoryError

    monkeypatch.setattr(app, "_check_verb", fail)
    assert app.run(["runs", "list"]) == 2
    said = capsys.readouterr().err
    assert "Memory does not suffice" in said
    assert "smaller files" in said


def test_debug_shows_the_traceback(monkeypatch, capsys):
    def fail(_words):
        raise RuntimeError("boom")

    monkeypatch.setattr(app, "_check_verb", fail)
    assert app.run(["runs", "list", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_output_has_no_colour_when_it_is_not_a_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "coterie", "runs", "list"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "No runs" in done.stderr


def test_next_steps_keep_brackets_and_comments(capsys):
    console.next_step("coterie x [y]  # say [why]")
    assert "coterie x [y]  # say [why]" in capsys.readouterr().err
