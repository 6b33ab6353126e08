"""The gate for foreign text that means harm, and encodings that lack what is printed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from coterie.cli.app import run as call
from coterie.cli.console import SafeConsole, emit_json, facts, next_step

TITLE = "\x1b]0;owned\x07\x9b2J\u202e"  # sets a window's title, clears, turns the line round
SHOWN = r"\x1b]0;owned\x07\x9b2J\u202e"
HARM = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def _console() -> tuple[SafeConsole, io.StringIO]:
    out = io.StringIO()
    return SafeConsole(file=out, width=200), out


@pytest.mark.parametrize(
    "make",
    [
        lambda text: text,
        Text,
        lambda text: facts([("name", text)]),
        lambda text: Text.assemble((text, "heading")),
    ],
)
def test_whatever_holds_the_text_it_is_made_harmless(make):
    console, out = _console()
    console.print(make(f"{TITLE} [/x] :smile: [red]"), soft_wrap=True)
    assert " [/x] :smile: [red]" in out.getvalue()
    assert r"\x1b]0;owned" in out.getvalue()
    assert not HARM.search(out.getvalue().replace("\n", ""))


def test_a_table_is_a_gate_too():
    console, out = _console()
    table = Table()
    table.add_column("[/head]")
    table.add_row(f"[/x]{TITLE}")
    console.print(table)
    assert "[/head]" in out.getvalue()
    assert f"[/x]{SHOWN}" in out.getvalue()


def test_colours_of_our_own_still_reach_a_terminal():
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, color_system="standard", no_color=False)
    console.print("good", style="good")
    assert "\x1b[32mgood\x1b[0m" in out.getvalue()


def test_json_keeps_the_text_and_harms_no_terminal(capsys):
    value = {f"name{TITLE}": [f"a\u2028b{TITLE}\udc80é"]}
    emit_json(value)
    shown = capsys.readouterr().out
    assert not HARM.search(shown.replace("\n", ""))
    assert "é" in shown
    assert json.loads(shown) == value


def _python(code: str, encoding: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, check=False
    )


def test_next_steps_end_where_their_words_end(capsys):
    next_step("coterie report a", "coterie train --resume latest  # go on")
    assert capsys.readouterr().err.splitlines()[1:] == [
        "Next: coterie report a", "      coterie train --resume latest  # go on",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "utf-16", "shift_jis"])
def test_a_poor_encoding_ends_no_command(encoding: str):
    code = (
        "import sys; from coterie.cli.console import console, emit_json, prepare_streams\n"
        "prepare_streams(); text = '“漢” − ▁█ é \\udc80'\n"
        "console.print(text); emit_json([text]); sys.stdout.write(text)"
    )
    done = _python(code, encoding)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert json.loads(re.search(r"\[\s.*?\]", shown, re.S)[0]) == ["“漢” − ▁█ é \udc80"]
    if encoding in ("cp1252", "ascii"):
        assert r"\u6f22" in shown
        assert " - 18 " in shown


EVIL = f"[/x]{TITLE}:x:"


@pytest.fixture
def evil_folder(places: Path) -> Path:
    folder = places / EVIL.replace("\x9b", "").replace("\u202e", "")
    folder.mkdir(parents=True)
    return folder


def _harmless(capsys) -> str:
    shown = "".join(capsys.readouterr())
    assert not HARM.search(shown.replace("\n", "").replace("\t", "")), repr(shown)
    return shown


def test_names_and_texts_of_others_are_shown_harmlessly(evil_folder: Path, capsys):
    text = evil_folder / "bad[red]\x1b[2J.txt"
    text.write_text(f"begin {TITLE} end\n" * 50, encoding="utf-8")
    store = evil_folder / "store"
    assert call(["data", "prepare", str(text), "--out", str(store), "--tokenizer", "bytes"]) == 0
    assert "[/x]" in _harmless(capsys)
    assert call(["data", "inspect", str(store)]) == 0
    assert SHOWN[:8] in _harmless(capsys)
    for words in (
        ["data", "inspect", str(store), "--json"],
        ["data", "verify", str(store)],
        ["tokenizer", "inspect", "bytes", f"{TITLE}[/x]"],
    ):
        assert call(words) == 0
        _harmless(capsys)


@pytest.mark.parametrize(
    "words",
    [
        [EVIL],
        ["train", EVIL],
        ["train", "quickstart", f"model.{EVIL}=1"],
        ["train", "quickstart", f"train.steps={EVIL}"],
        ["train", "quickstart", f"data.source={EVIL}", "--dry-run"],
        ["generate", EVIL, "x"],
        ["runs", "show", EVIL],
        ["report", EVIL],
        ["data", "verify", EVIL],
        ["data", "prepare", EVIL, "--out", "o"],
        ["model", "import", EVIL],
        ["presets", "show", EVIL],
        ["train", "--resume", EVIL, "--debug"],
    ],
)
def test_errors_show_foreign_words_harmlessly(words: list[str], capsys):
    assert call(words) != 0
    assert _harmless(capsys)


def test_a_runs_folder_named_like_markup(evil_folder: Path, monkeypatch, capsys):
    monkeypatch.setenv("COTERIE_RUNS", str(evil_folder / "runs"))
    monkeypatch.chdir(evil_folder)
    text = Path("text.txt")
    text.write_text("To be, or not to be.\n" * 40, encoding="utf-8")
    small = [
        "model.layers=1", "model.width=16", "model.context=16", "train.steps=2",
        "train.batch_size=2", "sample.max_tokens=4",
    ]  # fmt: skip
    source = f"data.source={text}"
    words = ["train", "quickstart", "scale=tiny", source, *small, "description='[/x] :x:'"]
    assert call([*words, "--dry-run"]) == 0
    assert "[/x] :x:" in _harmless(capsys)
    assert call([*words, "--name", "run"]) == 0
    for command in (
        ["train", "--resume", "run", "train.steps=3"],
        ["runs", "list"],
        ["runs", "show", "run"],
        ["report", "run"],
        ["evaluate", "run"],
        ["evaluate", "run", str(text), "--tokens"],
        ["model", "show", "run"],
        ["generate", "run", "To"],
    ):
        capsys.readouterr()
        assert call(command) == 0, command
        _harmless(capsys) if command[0] != "generate" else None
