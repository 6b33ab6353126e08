"""`coterie train`, `presets`, `demo` and `doctor` as a person would call them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from coterie.cli.app import run as coterie
from coterie.cli.doctor import Check
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import find_run, list_runs
from coterie.train.events import RunEnded

TEXT = "To be, or not to be, that is the question:\nWhether tis nobler in the mind to suffer\n" * 40
SMALL = ("scale=tiny", "train.steps=4", "train.evaluate_every=2", "train.checkpoint_every=2",
         "sample.max_tokens=5")  # fmt: skip


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return f"data.source={path}"


def test_train_resume_and_report(book, capsys):
    assert coterie(["train", "quickstart", *SMALL, book, "--name", "first"]) == 0
    shown = capsys.readouterr().err
    assert "coterie generate first" in shown
    run = find_run("first")
    assert run.report.exists()
    assert run.config.exists()
    assert coterie(["train", "--resume", "first", "train.steps=6"]) == 0
    ends = [event for event in read_events(run.events) if isinstance(event, RunEnded)]
    assert ends[-1].step == 6


def test_resuming_passes_over_bad_lines_and_names_them(book, capsys):
    assert coterie(["train", "quickstart", *SMALL, book, "--name", "first"]) == 0
    events = find_run("first").events
    events.write_bytes(
        b'{"kind":"run_started"}\n' + events.read_bytes() + b'{"kind":"evaluated"}\n'
    )
    capsys.readouterr()
    assert coterie(["train", "--resume", "first", "train.steps=6"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "line 1 was passed over" in told
    assert [end.step for end in read_events(events) if isinstance(end, RunEnded)] == [4, 6]


def test_a_profile_is_printed_and_refused_where_nothing_is_trained(book, capsys):
    words = ["train", "quickstart", *SMALL, book, "--profile"]
    assert coterie([*words, "--dry-run"]) == 2
    assert "--dry-run takes none" in capsys.readouterr().err
    assert coterie([*words, "--name", "first"]) == 2
    assert "only 4 are left" in capsys.readouterr().err
    assert coterie([*words, "train.steps=8", "--name", "first"]) == 0
    told = capsys.readouterr().err
    assert "experts" in told
    assert str(find_run("first").profile / "trace.json.gz") in told


def test_the_memory_of_steps_is_printed_and_refused_where_it_makes_no_sense(book, capsys):
    words = ["train", "quickstart", *SMALL, book]
    for flags, why in (
        (["--memory-profile", "--dry-run"], "--dry-run takes none"),
        (["--memory-profile", "--profile"], "its times would mean nothing"),
        (["--report-interval", "2"], "that is not asked for"),
        (["--memory-profile", "--report-interval", "0"], "at least one step"),
        (["--memory-profile", "--report-interval", "5"], "only 4 are left"),
    ):
        assert coterie([*words, *flags, "--name", "first"]) == 2
        assert why in " ".join(capsys.readouterr().err.split())
    words += ["--memory-profile", "--report-interval", "4", "--name", "first"]
    assert coterie(words) == 0
    assert "Memory of step 4" in capsys.readouterr().err
    assert "Memory of step 4" in find_run("first").report.read_text(encoding="utf-8")


def test_a_resumed_run_keeps_its_settings(book, capsys):
    assert coterie(["train", "quickstart", *SMALL, book, "--name", "first"]) == 0
    assert coterie(["train", "--resume", "first", "model.width=64"]) == 2
    assert "only train.steps" in capsys.readouterr().err


def test_a_run_that_stands_at_step_0_keeps_its_settings(book, capsys):
    # Its weights were drawn from its seed: unlike an imported model, it is bound to its settings.
    asked = ["train.checkpoint_first=true", "train.checkpoint_every=0", "train.keep=5"]
    assert coterie(["train", "quickstart", *SMALL, book, *asked, "--name", "first"]) == 0
    checkpoints = find_run("first").checkpoints
    for path in checkpoints.iterdir():
        if path.name != "step-00000000":
            shutil.rmtree(path)
    assert coterie(["train", "--resume", "first", "seed=5"]) == 2
    assert "only train.steps or train.epochs may" in capsys.readouterr().err
    assert coterie(["train", "--resume", "first"]) == 0


def test_a_run_cannot_be_resumed_to_fewer_steps(book, capsys):
    assert coterie(["train", "quickstart", *SMALL, book, "--name", "first"]) == 0
    before = find_run("first").config.read_text()
    assert coterie(["train", "--resume", "first", "train.steps=2"]) == 2
    assert "has done 4 steps already" in capsys.readouterr().err
    assert find_run("first").config.read_text() == before


def test_places_that_cannot_be_written_to_are_named(book, tmp_path, monkeypatch, capsys):
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("COTERIE_RUNS", str(tmp_path / "blocked"))
    assert coterie(["train", "quickstart", *SMALL, book]) == 2
    assert "blocked" in capsys.readouterr().err


def test_a_full_disk_under_a_checkpoint_is_told_and_leaves_none(book):
    """The limit on the size of files stands in for a disk with no room."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from coterie.cli.app import run; sys.exit(run(sys.argv[1:]))"
    )
    words = ["train", "quickstart", *SMALL, book, "--name", "full"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "disk is full" in done.stderr
    assert list(find_run("full").checkpoints.iterdir()) == []


def test_names_are_given_in_turn(book, capsys):
    for _ in range(2):
        assert coterie(["train", "quickstart", *SMALL, book]) == 0
    assert {run.name for run in list_runs()} == {"quickstart", "quickstart-2"}


def test_the_result_as_json(book, capsys):
    assert coterie(["train", "quickstart", *SMALL, book, "--name", "first", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == "first"
    assert result["steps"] == 4


def test_dry_run_tells_everything_and_makes_nothing(book, capsys):
    words = ["train", "quickstart", "scale=tiny", book, "train.steps=7", "--dry-run"]
    assert coterie(words) == 0
    shown = capsys.readouterr().out
    assert "train.steps = 7  # command line: train.steps=7" in shown
    assert "model.width = 32  # preset quickstart at scale tiny" in shown
    assert "active per token" in shown
    assert list_runs() == []
    assert coterie([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["origins"]["train.steps"] == "command line: train.steps=7"
    assert told["plan"]["parameters"] > told["plan"]["active_parameters"] > 0
    words[4] = "train.epochs=2"  # in the stead of the preset's steps
    assert coterie(words) == 0
    shown = capsys.readouterr().out
    assert "train.steps" not in shown
    assert "2, how many steps is known when the data are prepared" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "Which preset"),
        (["train", "quickstrat"], "did you mean “quickstart”"),
        (["train", "none.yaml"], "no settings file"),
        (["train", "quickstart", "scale=small"], "no scale “small”"),
        (["train", "quickstart", "train.stepz=3"], "did you mean “steps”"),
        (["train", "quickstart", "model.attention.heads=3"], "3 attention heads cannot share"),
        (["train", "quickstart", "model.width=-1", "train.steps=x"], "2 problems"),
        (["train", "quickstart", "data.source=none.txt"], "none.txt"),
        (["train", "--resume", "none"], "no run"),
        (["train", "quickstart", *SMALL, "train.batch_size=20000000"], "GiB of memory"),
        (["train", "quickstart", "model.width=2100000000", "--dry-run"], "Lower model.width"),
        (["demo", "something"], "takes no target"),
        (["presets", "show", "nothing"], "no preset"),
    ],
)
def test_bad_words_exit_with_2_and_leave_no_run(words, said, capsys):
    assert coterie(words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert [run for run in list_runs() if run.events.exists()] == []


def test_presets_are_listed_shown_and_copied(tmp_path, capsys):
    assert coterie(["presets", "list", "--json"]) == 0
    assert "quickstart" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert coterie(["presets", "list"]) == 0
    assert coterie(["presets", "show", "yinggem"]) == 0
    assert "133,957,969" in capsys.readouterr().out
    assert coterie(["presets", "show", "gpt2", "scale=tiny", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counts"]["parameters"] == shown["plan"]["parameters"]
    assert shown["counts"]["tree"][0]["parameters"] == shown["counts"]["parameters"]

    mine = tmp_path / "mine.yaml"
    assert coterie(["presets", "copy", "gpt2", str(mine)]) == 0
    assert "# GPT-2" in mine.read_text()
    assert coterie(["presets", "copy", "gpt2", str(mine)]) == 2
    assert coterie(["presets", "copy", "gpt2", str(mine), "--force"]) == 0


def test_the_demo_goes_from_text_to_text(book, capsys):
    assert coterie(["demo", *SMALL, book, "--name", "short"]) == 0
    told = capsys.readouterr()
    assert "step 4" in told.out
    assert "coterie generate short" in told.err
    assert find_run("short").report.exists()


def test_the_doctor_finds_this_machine_sound(monkeypatch, capsys):
    assert coterie(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["shipped Shakespeare"]["state"] == "good"
    assert "GFLOP/s" in checks["compute on cpu"]["text"]
    known = [Check(**check) for check in checks.values() if "cpu" in check["name"]]
    monkeypatch.setattr("coterie.cli.doctor._torch", lambda: known)  # measuring takes seconds
    assert coterie(["doctor"]) == 0
    assert "GFLOP/s" in capsys.readouterr().out


def test_the_doctor_says_what_is_broken(monkeypatch, capsys):
    monkeypatch.setattr("coterie.cli.doctor._LIBRARIES", ("surely-not-installed",))
    monkeypatch.setattr("coterie.cli.doctor._torch", list)
    assert coterie(["doctor"]) == 2
    assert "missing" in capsys.readouterr().out


def test_a_dry_run_refuses_the_stores_that_a_run_refuses(book, capsys):
    source = book.removeprefix("data.source=")
    assert coterie(["data", "prepare", source, "--out", "store", "--tokenizer", "bytes"]) == 0
    other = "tokenizer.kind=characters"
    for words in (["data.store=store", other], ["data.source=store", other],
                  ["data.store=store", "model.vocab_size=50304", other],
                  ["data.store=gone"]):  # fmt: skip
        told = []
        for dry in ([], ["--dry-run"]):
            capsys.readouterr()
            assert coterie(["train", "quickstart", *SMALL, *words, *dry]) == 2, words
            told.append(capsys.readouterr().err)
        assert told[0].splitlines()[-1] == told[1].splitlines()[-1]
        assert "another tokenizer" in told[1] or words == ["data.store=gone"]
    capsys.readouterr()
    own = ["tokenizer.kind=file", "tokenizer.path=store", "tokenizer.special_tokens=[]"]
    for words in (["data.source=store", *own], ["data.source=store"], ["data.store=store"]):
        assert coterie(["train", "quickstart", *SMALL, *words, "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["plan"]["vocab_size"] == 257


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["yinghub", "tokenizer={kind: bytes, special_tokens: []}"],
         "is no single token of the tokenizer"),
        (["gpt2", "tokenizer={kind: tiktoken}", "model.vocab_size=300"],
         "smaller than the tokenizer's 50,257"),
        (["quickstart", "model.vocab_size=300", "data.source=gone.txt"], "no input “gone.txt”"),
        (["gpt2", "data.source=gone.txt"], "no input “gone.txt”"),
    ],
)  # fmt: skip
def test_a_dry_run_refuses_tokenizers_and_texts_that_a_run_refuses(words, why, capsys):
    for dry in ([], ["--dry-run"]):
        assert coterie(["train", *words, "scale=tiny", "train.steps=1", *dry]) == 2
        assert why in capsys.readouterr().err
