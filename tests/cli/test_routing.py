"""`coterie evaluate RUN routing` tells what experts are used for, by file and by source."""

import json

import pytest

from coterie.cli import app


def test_routing_is_analysed_by_domain(tiny_run, tmp_path, capsys):
    for name, text in (("a.txt", "It was a bright cold day. " * 5), ("b.txt", "clocks! " * 12)):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert app.run(["evaluate", "tiny", "routing", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["domains"]) == files
    assert [layer["layer"] for layer in told["layers"]] == [0, 1]
    for layer in told["layers"]:
        assert sum(each["load"] for each in layer["experts"]) == pytest.approx(4)
        assert set(layer["experts"][0]["masked"]) == set(files)
        assert 0 <= layer["domain"]["nats"] <= layer["expert_entropy"]
    assert app.run(["evaluate", "tiny", "routing"]) == 0
    page = capsys.readouterr().out
    assert "What a token's expert tells" in page
    assert "1:3" in page
    assert app.run(["evaluate", "tiny", "routing", "--tokens", "--text", "a"]) == 2
