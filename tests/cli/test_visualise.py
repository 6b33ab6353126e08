"""`coterie visualise`: a text is watched, recorded and shown again without the model."""

import json

import pytest

from coterie.cli.app import run
from coterie.foundation.traces import read_trace


def test_a_record_shows_what_was_seen(tiny_run, tmp_path, capsys):
    file = tmp_path / "a.trace"
    asked = ["--layer", "1", "--expert", "1:2", "--plain"]
    command = ["visualise", "tiny", "It was", "max_tokens=5", "--record", str(file), *asked]
    assert run(command) == 0
    live = capsys.readouterr().out
    assert "\x1b" not in live
    assert "It was" in live
    assert "Expert 1:2" in live
    assert run(["visualise", str(file), *asked]) == 0
    assert capsys.readouterr().out == live
    assert run(["generate", "tiny", "It was", "max_tokens=5", "compute=torch"]) == 0
    assert "".join(read_trace(file).texts) == "It was" + capsys.readouterr().out.removesuffix("\n")


def test_a_masked_expert_gets_nothing_and_the_figures_say_so(tiny_run, capsys):
    command = ["visualise", "tiny", "It was", "--json", "--mask", "1:2", "--force", "0:1"]
    assert run(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["masked"], figures["forced"]) == (["1:2"], ["0:1"])
    first, second = figures["layers"]
    assert second["prompt"]["load"][2] == second["generated"]["load"][2] == 0
    assert first["generated"]["load"][1] == pytest.approx(2.0)  # one of two choices of every token
    assert 2 in second["prompt"]["dead"]


def test_a_terminal_opens_the_view_and_none_is_told_of(tiny_run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("textual")
    from coterie.cli import watch
    from coterie.visualise.console import SafeConsole
    from coterie.visualise.live.writing import WritingApp

    assert run(["visualise", "tiny", "It was"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "needs a terminal" in told
    assert "--plain" in told
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(watch, "console", SafeConsole(force_terminal=True))
    assert run(["visualise", "tiny", "It was"]) == 2
    assert "standard input is none" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert run(["visualise", "tiny", "-"]) == 2
    assert "write it out" in " ".join(capsys.readouterr().err.split())
    opened = []

    def look(app):
        while app.live.trace and app.live.writing:
            pass
        opened.append((app.live.trace, app.at, app.live.can_write))
        app.live.close()

    monkeypatch.setattr(WritingApp, "run", look)
    file = tmp_path / "a.trace"
    assert run(["visualise", "tiny", "It was", "max_tokens=3", "--record", str(file)]) == 0
    assert run(["visualise", str(file), "--at", "2"]) == 0
    (first, at, can), (second, at_again, can_again) = opened
    assert (at, can, at_again, can_again) == (None, True, 1, False)
    assert first.records.tobytes() == second.records.tobytes()
    assert run(["visualise", "tiny", "--layer", "9"]) == 2, "what is wrong there is said here"
    assert "Layer 9 has no experts." in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "textual", None)
    assert run(["visualise", str(file)]) == 2
    assert 'pip install "coterie[watch]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Which run, or which record"),
        (["tiny", "--expert", "x"], "--expert x is no expert"),
        (["tiny", "--layer", "9"], "Layer 9 has no experts. Layers with experts: 0, 1"),
        (["tiny", "--expert", "1:4"], "no expert 1:4: layer 1 has the experts 0 to 3"),
        (["tiny", "--mask", "1:4"], "Expert 1:4 cannot be masked"),
        (["tiny", "--at", "99", "max_tokens=2"], "--at 99: the text has the tokens 1 to"),
    ],
)
def test_what_cannot_be_shown_is_refused(tiny_run, capsys, words, told):
    assert run(["visualise", *words, "--plain"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_record_takes_nothing_else_and_says_where_it_is_damaged(tiny_run, tmp_path, capsys):
    file = tmp_path / "a.trace"
    assert run(["visualise", "tiny", "max_tokens=20", "--plain", "--record", str(file)]) == 0
    assert run(["visualise", str(file), "a prompt"]) == 2
    assert "shown as it is" in capsys.readouterr().err
    content = file.read_bytes()
    file.write_bytes(content[:-400])
    assert run(["visualise", str(file), "--plain"]) == 0
    assert "ends early, after 16 tokens" in " ".join(capsys.readouterr().err.split())
    file.write_bytes(content[:-400] + b"\0" * 400)
    assert run(["visualise", str(file)]) == 2
    assert "is damaged at byte" in " ".join(capsys.readouterr().err.split())


def test_a_record_opens_without_torch(tiny_run, tmp_path):
    import subprocess
    import sys

    file = tmp_path / "a.trace"
    assert run(["visualise", "tiny", "max_tokens=2", "--plain", "--record", str(file)]) == 0
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from coterie.cli.app import run\n"
        f"sys.exit(run(['visualise', {str(file)!r}, '--json']))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
