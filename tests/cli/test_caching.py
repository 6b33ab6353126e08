"""`coterie evaluate … cache=…`: what a cache costs, by flag and by settings."""

import json

import pytest

from coterie.cli import app


def asked(*words, capsys):
    assert app.run(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_exact_cache_shows_no_change(tiny_run, capsys):
    shown = asked("tiny", "--text", "To be, or not to be", "--cache", "paged", capsys=capsys)
    assert shown["cache"]["kind"] == "paged"
    assert shown["perplexity_through_cache"] == pytest.approx(shown["perplexity"], rel=1e-5)
    assert float(shown["perplexity_change"].rstrip("%")) == 0
    assert shown["cache_bytes_per_token"] > 0


def test_settings_of_the_cache_are_words(tiny_run, capsys):
    words = ("tiny", "cache=pruned", "cache.size=8", "cache.sinks=1")
    shown = asked(*words, capsys=capsys)  # of the run's own validation split
    assert shown["cache"] == {"kind": "pruned", "size": 8, "heavy": 0.5, "sinks": 1}
    assert shown["perplexity_through_cache"] != shown["perplexity_without"]
    assert shown["cache_bytes_per_token"] < shown["full_cache_bytes_per_token"]
    assert app.run(["evaluate", "tiny", "--cache", "quantised", "cache.bits=4"]) == 0
    assert "kind=quantised, bits=4" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cache", "quantized"], "did you mean “quantised”"),
        (["cache=quantised", "cache.bits=3"], "8 or 4"),
        (["cache=none"], "keeps nothing"),
        (["cache=full", "temperature=1"], "of settings cache=… and weights=… alone"),
    ],
)
def test_what_cannot_be_measured_is_told(tiny_run, capsys, words, told):
    assert app.run(["evaluate", "tiny", *words]) != 0
    assert told in " ".join(capsys.readouterr().err.split())
