"""`coterie generate RUN --session FILE`: several commands write what one would have."""

from coterie.cli import app


def written(*words, capsys):
    assert app.run(["generate", "tiny", *words]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_a_session_goes_on(tiny_run, tmp_path, capsys):
    path = str(tmp_path / "play")
    whole = written("It", "max_tokens=24", capsys=capsys)
    first = written("It", "max_tokens=10", "--session", path, capsys=capsys)
    second = written("max_tokens=14", "--session", path, capsys=capsys)
    assert first + second == whole


def test_what_a_session_cannot_take_is_told(tiny_run, tmp_path, capsys):
    path = str(tmp_path / "play")
    written("It", "max_tokens=3", "--session", path, capsys=capsys)
    for words, told in (
        (["Another"], "cannot take another prompt"),
        (["cache=none"], "keeps the cache"),
        (["--json"], "leave --json and --samples out"),
    ):
        assert app.run(["generate", "tiny", *words, "--session", path]) != 0
        assert told in " ".join(capsys.readouterr().err.split())
