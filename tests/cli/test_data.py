"""`coterie data`: what users see, and the exit codes."""

from __future__ import annotations

import json

import pytest

from coterie.cli.app import run as coterie

TEXT = "Now is the winter of our discontent\nMade glorious summer by this sun of York;\n"


@pytest.fixture
def folder(places):
    for name in ("one", "two", "three"):
        (places / "books").mkdir(exist_ok=True)
        (places / "books" / f"{name}.txt").write_text(f"{name}\n{TEXT}" * 5)
    return "books"


def prepared(folder, *options):
    return coterie(["data", "prepare", folder, "--out", "store", "--tokenizer", "bytes", *options])


def test_prepare_inspect_verify(folder, capsys):
    assert prepared(folder) == 0
    captured = capsys.readouterr()
    assert "train" in captured.out
    assert "coterie train" in captured.err
    assert coterie(["data", "inspect", "store"]) == 0
    shown = capsys.readouterr().out
    assert "bytes tokenizer of 257 tokens" in shown
    assert "Now is the winter" in shown
    assert coterie(["data", "verify", "store"]) == 0
    assert "sound" in capsys.readouterr().out


def test_everything_as_json(folder, capsys):
    assert prepared(folder, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["splits"]["train"]["documents"] == 2
    assert figures["splits"]["valid"]["documents"] == 1
    assert coterie(["data", "inspect", "store", "--json", "--sample", "12"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["fingerprint"] == figures["fingerprint"]
    assert len(again["sample"]["train"]) == 12
    assert coterie(["data", "verify", "store", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["store"]
    assert (found["sound"], found["problems"]) == (True, [])
    assert (found["leak"]["documents"], found["leak"]["equal"]) == (1, 0)


def test_texts_are_cleaned_first(folder, places, capsys):
    (places / folder / "one.txt").write_text(f"one  \r\n\n\n{TEXT}" * 5, newline="")
    assert prepared(folder, "--json", "--clean", "whitespace") == 0
    assert json.loads(capsys.readouterr().out)["clean"] == [
        {"kind": "whitespace", "blank_lines": 1}
    ]
    assert coterie(["data", "verify", "store"]) == 0
    assert prepared(folder, "--replace", "--clean", "whitspace") == 2
    assert "did you mean “whitespace”" in capsys.readouterr().err


def test_verify_lists_every_problem_and_exits_with_2(folder, places, capsys):
    prepared(folder)
    (places / "store" / "train-00000.bin").write_bytes(b"xy")
    (places / "store" / "stray.bin").write_bytes(b"xy")
    capsys.readouterr()
    assert coterie(["data", "verify", "store", "gone"]) == 2
    shown = capsys.readouterr().out
    for part in ("UNSOUND", "train-00000.bin has", "stray.bin (a file) does not", "no token store"):
        assert part in shown
    assert coterie(["data", "verify"]) == 2


def test_verify_can_leave_the_text_out(folder, places, capsys, monkeypatch):
    prepared(folder)
    monkeypatch.setattr("coterie.data.verify.recount_problems", lambda *_: ["of the text"])
    assert coterie(["data", "verify", "store"]) == 2
    assert coterie(["data", "verify", "store", "--quick"]) == 0


def test_options_reach_the_store(places, capsys):
    (places / "rows.csv").write_text('id,story\n1,"a <X> b"\n2,bad,row\n3,"<PLAY>"\n4,"c"\n')
    assert coterie([
        "data", "prepare", "rows.csv", "--out", "store", "--tokenizer", "bpe:320",
        "--column", "story", "--special", "<X>", "--special", "drama", "--on-error", "skip",
        "--valid-fraction", "0", "--json",
    ]) == 0  # fmt: skip
    figures = json.loads(capsys.readouterr().out)
    assert figures["splits"]["train"]["documents"] == 3
    assert figures["splits"]["valid"]["tokens"] == 0
    assert figures["skipped"] == 1
    assert "rows.csv:3" in figures["problems"][0]
    assert figures["tokenizer"]["kind"] == "pieces"
    assert coterie(["tokenizer", "inspect", "store", "<X><PLAY>", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 2


def test_what_was_left_out_and_unknown_is_shown(places, capsys):
    (places / "a.jsonl").write_text('{"text": "abc"}\n{\n{"text": "cab"}\n')
    assert coterie(["data", "prepare", "a.jsonl", "--out", "s", "--on-error", "skip"]) == 0
    assert "a.jsonl:2" in capsys.readouterr().err
    assert coterie(["data", "prepare", "a.jsonl", "--out", "s2", "--tokenizer", "characters"]) == 2
    (places / "b.txt").write_text("xyz " * 9)
    assert coterie(["data", "prepare", "b.txt", "--out", "t", "--tokenizer", "characters"]) == 0
    (places / "c.txt").write_text("abc " * 9)
    assert coterie(["data", "prepare", "c.txt", "--out", "u", "--tokenizer", "t"]) == 0
    err = capsys.readouterr().err
    assert "27 tokens stand for what the vocabulary cannot say" in err
    assert "only one document" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["gone.txt", "--out", "s"], "There is no input"),
        (["books", "--out", "s", "--tokenizer", "gpt9"], "did you mean “gpt2”"),
        (["books", "--out", "s", "--valid-fraction", "2"], "valid_fraction"),
        (["books", "--out", "s", "--split", "half"], "split"),
        (["books", "--out", "books"], "exists already"),
        (["--out", "s"], "No input"),
        (["books/one.txt", "--out", "s", "--special", "a b\nc"], "line break"),
        (["binary", "--out", "s"], "binary file"),
    ],
)
def test_mistakes_of_users_exit_with_2_and_leave_nothing(folder, places, capsys, words, why):
    (places / "binary").write_bytes(b"\0\1\2")
    before = sorted(path.name for path in places.iterdir())
    assert coterie(["data", "prepare", *words]) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in places.iterdir()) == before


def test_an_old_store_is_replaced_only_on_request(folder, places, capsys):
    assert prepared(folder) == 0
    assert prepared(folder) == 2
    assert prepared(folder, "--replace", "--valid-fraction", "0") == 0
    assert coterie(["data", "prepare", folder, "--out", folder, "--replace"]) == 2
    assert (places / "books" / "one.txt").exists()


def test_a_progress_bar_appears_on_a_terminal_only(folder, capsys, monkeypatch):
    assert prepared(folder) == 0
    assert "\x1b" not in capsys.readouterr().err
    from coterie.api.progress import stage_bar

    with stage_bar() as tell:
        tell("reading", 10, None)
        tell("tokenizing", 10, 20)
        tell("tokenizing", 20, 20)
    assert capsys.readouterr().err.strip() == ""


def test_a_text_is_not_called_a_damaged_store(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("Some words.")
    assert coterie(["data", "inspect", str(tmp_path / "book.txt")]) == 2
    told = capsys.readouterr().err
    assert "is a file, not a token store" in told
    assert "coterie data prepare" in told


PLAY = "CATS\n\nACT I.\n\nSCENE I. A roof.\n\n" + "".join(
    f"{name}.\nThe night is fair.\n[Exit {name}.]\n\n" for name in ("TOM", "PUSS") * 6
)
POEM = "THE CAT\n\nI\n\nA cat sat on a wall_,\nAnd that was nearly all.\n"


@pytest.fixture
def works(places):
    (places / "works").mkdir()
    for name, text in (("play", PLAY), ("poem", POEM)):
        licence = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n"
        (places / "works" / f"{name}.txt").write_text(licence + text)
    return places


def cleaned(*options):
    return coterie(["data", "clean", "auto", "works", "--out", "out", *options])


def test_a_play_and_a_poem_are_cleaned(works, capsys):
    assert cleaned() == 0
    told = capsys.readouterr()
    assert "out/texts: 1 play, 1 poem;" in told.out
    assert "out/report.jsonl: 1 unrecognised, 2 removed, 0 rewritten" in told.out
    assert "works/poem.txt:6: marks left over in words: 'A cat sat on a wall_,'" in told.out
    assert "coterie data prepare out/texts" in told.err
    play = (works / "out/texts/play.txt").read_text()
    assert play.startswith("<PLAY>CATS</PLAY>\n<ACT>I</ACT>\n<SCENE>I. A roof.</SCENE>\n")
    assert "<SPEAKER>TOM</SPEAKER>\nThe night is fair.\n<STAGE>Exit TOM.</STAGE>\n" in play
    poem = (works / "out/texts/poem.txt").read_text()
    assert poem.startswith("<POEM>THE CAT</POEM>\n<PART>I</PART>\nA cat sat")
    rows = [json.loads(row) for row in (works / "out/report.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == {"works/play.txt", "works/poem.txt"}


def test_cleaning_again_as_json_needs_a_new_folder_and_a_known_kind(works, capsys):
    assert cleaned("--tags", "inside", "--json", "--report", "told.jsonl") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["kinds"] == {"play": 1, "poem": 1}
    assert (figures["texts"], figures["report"]) == ("out/texts", "told.jsonl")
    assert figures["reading"]["skipped"] == 0
    assert "<SCENE>ACT I</SCENE>" in (works / "out/texts/play.txt").read_text()
    assert "<STAGE>[Exit TOM.]</STAGE>" in (works / "out/texts/play.txt").read_text()
    before = (works / "out/texts/play.txt").read_bytes()
    assert cleaned() == 2
    assert "exists" in capsys.readouterr().err
    assert (works / "out/texts/play.txt").read_bytes() == before
    assert coterie(["data", "clean", "gutenburg", "works", "--out", "new"]) == 2
    assert "gutenberg" in capsys.readouterr().err
    assert coterie(["data", "clean", "auto", "--out", "new"]) == 2
    (works / "works/bare.txt").write_text("[Pg 7]\n")
    assert coterie(["data", "clean", "auto", "works", "--out", "new"]) == 2
    assert "bare.txt: nothing but" in capsys.readouterr().err
    assert coterie(["data", "clean", "auto", "works", "--out", "new", "--on-error", "skip"]) == 0
    assert "1 row or file was left out" in capsys.readouterr().err
    assert not (works / "new/texts/bare.txt").exists()
