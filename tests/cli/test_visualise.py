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


def test_a_terminal_is_drawn_on(tiny_run, capsys, monkeypatch):
    from coterie.cli import visualise
    from coterie.visualise.console import SafeConsole

    monkeypatch.setenv("TERM", "xterm")
    drawn = SafeConsole(force_terminal=True, width=120, height=40)
    monkeypatch.setattr(visualise, "console", drawn)
    monkeypatch.setattr(visualise, "_DRAWINGS_PER_SECOND", 1e9)
    assert run(["visualise", "tiny", "It was", "max_tokens=3"]) == 0
    out = capsys.readouterr().out
    assert "token 6 of 6: " in out  # the prompt was read, the text goes on
    assert "token 8 of 9: " in out
    assert "Load so far" in out


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
    assert run(["visualise", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_record_takes_nothing_else_and_says_where_it_is_damaged(tiny_run, tmp_path, capsys):
    file = tmp_path / "a.trace"
    assert run(["visualise", "tiny", "max_tokens=20", "--record", str(file)]) == 0
    assert run(["visualise", str(file), "a prompt"]) == 2
    assert "shown as it is" in capsys.readouterr().err
    content = file.read_bytes()
    file.write_bytes(content[:-400])
    assert run(["visualise", str(file)]) == 0
    assert "ends early, after 16 tokens" in " ".join(capsys.readouterr().err.split())
    file.write_bytes(content[:-400] + b"\0" * 400)
    assert run(["visualise", str(file)]) == 2
    assert "is damaged at byte" in " ".join(capsys.readouterr().err.split())


def test_a_record_opens_without_torch(tiny_run, tmp_path):
    import subprocess
    import sys

    file = tmp_path / "a.trace"
    assert run(["visualise", "tiny", "max_tokens=2", "--record", str(file)]) == 0
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from coterie.cli.app import run\n"
        f"sys.exit(run(['visualise', {str(file)!r}, '--json']))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
