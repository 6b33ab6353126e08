"""`--web` and `--export`: a page of one file, and a server that writes what it is asked for."""

import json
import re
import shutil
import threading

import pytest

from coterie.cli.app import run
from coterie.foundation.runs import find_run
from coterie.visualise.web.studio import Lapse


def packs_of(path):
    return json.loads(re.search(r'id="packs">(.*?)</script>', path.read_text())[1])


def test_a_text_and_records_are_exported(tiny_run, tmp_path, capsys):
    page, record = tmp_path / "a.html", tmp_path / "a.trace"
    command = ["visualise", "tiny", "It was", "max_tokens=3", "--record", str(record)]
    assert run([*command, "--export", str(page)]) == 0
    (pack,) = packs_of(page)
    assert (pack["title"], pack["tokens"]["texts"][:6]) == ("It was", list("It was"))
    both, other = tmp_path / "both.html", tmp_path / "b.trace"
    other.write_bytes(record.read_bytes())
    assert run(["visualise", str(record), str(other), "--export", str(both)]) == 0
    assert [each["title"] for each in packs_of(both)] == ["a.trace", "b.trace"]
    assert run(["visualise", str(record), "tiny", "--export", str(both)]) == 2
    assert "Load so far" not in capsys.readouterr().out  # the page in place of the panels


def test_a_model_is_served_with_its_run(tiny_run, monkeypatch, capsys):
    from coterie.visualise.web import server

    served = {}

    def stand_in(studio, board, **given):
        served.update(given, studio=studio, board=board)
        given["tell"]("http://address")

    monkeypatch.setattr(server, "serve", stand_in)
    words = ["visualise", "tiny", "It was", "max_tokens=3", "--web", "--mask", "1:2"]
    assert run([*words, "--port", "8123"]) == 0
    assert "http://address" in capsys.readouterr().out
    assert (served["host"], served["port"]) == ("127.0.0.1", 8123)
    studio = served["studio"]
    wait = threading.Event()
    while not studio.find(1).done:
        wait.wait(0.02)
    written = studio.find(1).trace()
    assert (written.header.masked, len(written.texts)) == (("1:2",), 9)
    facts = studio.author.facts()
    assert (facts["name"], facts["steps"], facts["drawing"]["max_tokens"]) == ("tiny", [1, 2], 3)
    tokens = written.records["token"].tolist()
    assert len(studio.author.surprises(tokens, 1, {}, {})) == len(tokens) - 1
    assert [each["name"] for each in served["board"].listing()] == ["tiny"]
    lapse = studio.lapse(Lapse(text=1))
    assert (lapse["steps"], len(lapse["layers"])) == ([1, 2], 2)
    for layer in lapse["layers"]:  # both checkpoints have the same weights
        assert (layer["kept"], layer["even"]) == ([1.0, 1.0], 0.5)
        assert layer["experts"][0] == layer["experts"][1]


def test_a_run_of_another_folder_is_on_the_board(tiny_run, tmp_path, monkeypatch, capsys):
    from coterie.visualise.web import server

    boards, far = [], tmp_path / "a share" / "far-run"
    monkeypatch.setattr(
        server, "serve", lambda studio, board, **given: boards.append((board, given["view"]))
    )
    shutil.copytree(find_run("tiny").path, far)
    for words, control in (([], False), (["--control"], True)):
        assert run(["watch", str(far), "--web", *words]) == 0
        board, view = boards.pop()
        assert view == "training&run=far-run"
        assert [each["name"] for each in board.listing()] == ["far-run", "tiny"]
        assert board.curves("far-run")["name"] == "far-run"
        assert board.control is control
    assert run(["watch", "tiny", "--control"]) == 2
    assert "--control belongs to --web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--web", "--record", "a"], "exported by a button"),
        (["--web", "--port", "70000"], "--port 70000"),
        (["--web", "--host", "0.0.0.0"], "every address"),
        (["--web", "--mask", "1:9"], "Expert 1:9 cannot be masked"),
    ],
)
def test_what_cannot_be_served_is_refused(tiny_run, capsys, words, told):
    assert run(["visualise", "tiny", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
