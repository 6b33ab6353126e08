"""`coterie evaluate RUN --against RUN`: words become a contest, and its figures are told."""

import json
import shutil

import pytest

from coterie.cli.app import run
from coterie.foundation.runs import runs_root


@pytest.fixture
def rival(tiny_run):
    shutil.copytree(runs_root() / "tiny", runs_root() / "rival")


def test_a_run_beside_itself_is_even_and_the_sheet_has_a_key(rival, places, capsys):
    sheet, prompts = places / "sheet.txt", places / "prompts.txt"
    prompts.write_text("It\nwas\nbright\n")
    words = ["evaluate", "tiny", "--against", "rival", "--reward", "pattern:regex=e"]
    words += ["align.rollout.max_tokens=4", f"align.held_out={prompts}"]
    words += [f"align.prompts={prompts}"]
    assert run([*words, "--sheet", str(sheet), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["won"] == found["lost"] == 0
    assert found["even"] == found["prompts"] > 0
    assert found["win_rate"] == 0.5
    assert found["figures"] == found["against_figures"]
    assert "A [ ]" in sheet.read_text()
    assert (places / "sheet.txt.key").read_text().startswith("number\tA\tB\n")
    assert run(words) == 0
    assert "win rate 50.0%" in capsys.readouterr().out


def test_what_cannot_be_is_told(rival, capsys):
    assert run(["evaluate", "tiny", "--against", "rival"]) == 2
    assert "say what judges" in capsys.readouterr().err
    assert run(["evaluate", "tiny", "--reward", "metre"]) == 2
    assert "belong to --against" in capsys.readouterr().err
