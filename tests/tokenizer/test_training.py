"""Training BPE: as the library does, in bounded pieces, and open to interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from coterie.foundation.errors import DataError, TokenizerError
from coterie.tokenizer import training
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.training import LONGEST_RUN, Stretches, run_interruptibly, train_bpe


def words(seed, count, longest=9):
    rng = random.Random(seed)
    return ["".join(rng.choices("etaoinshr", k=rng.randrange(1, longest))) for _ in range(count)]


def library(texts, size):
    """What the library makes of whole texts."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rules.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return json.loads(rules.to_str())["model"]


@pytest.mark.parametrize("separator", [" ", "\n", ", ", "，", "\n\n  "])
def test_small_pieces_give_the_merges_of_the_whole_text(monkeypatch, separator):
    monkeypatch.setattr(training, "_STRETCH", 50)
    text = separator.join(words(1, 3000))
    ours = train_bpe([text], [END_OF_TEXT], 600, 2)
    assert json.loads(ours.to_str())["model"] == library([text], 600)


def test_pieces_are_small_and_lose_nothing(monkeypatch):
    monkeypatch.setattr(training, "_STRETCH", 100)
    text = " ".join(words(2, 500)) + "x" * 3500 + "7" * 2500 + " " * 1500 + "!" * 1001 + "end"
    stretches = Stretches([text, END_OF_TEXT + "more"], [END_OF_TEXT])
    pieces = list(stretches)
    assert "".join(pieces) == text + "more"
    assert max(map(len, pieces)) <= 100
    assert stretches.characters == len(text) + 4


def test_runs_without_an_end_are_trained_on_in_parts_and_not_without_end(monkeypatch):
    rng = random.Random(3)
    run = "".join(rng.choices("acgt", k=9 * LONGEST_RUN + 5))
    assert [len(piece) for piece in Stretches([run], [END_OF_TEXT])] == [LONGEST_RUN] * 9 + [5]
    assert list(Stretches(["x" * (LONGEST_RUN - 1)], [END_OF_TEXT])) == ["x" * (LONGEST_RUN - 1)]
    monkeypatch.setattr(training, "MOST_IN_RUNS", 4 * LONGEST_RUN)
    used = "".join(Stretches([f"before {run} after"], [END_OF_TEXT]))
    assert used == "before " + run[: 4 * LONGEST_RUN] + run[-5:] + " after"
    kind = BPE(vocab_size=300).build([run])
    assert kind.vocab_size == 300
    assert kind.decode(kind.encode(run)) == run


def test_failures_of_reading_come_through():
    def texts():
        yield "some text"
        raise DataError("broken here")

    with pytest.raises(DataError, match="broken here"):
        BPE(vocab_size=300).build(texts())
    with pytest.raises(TokenizerError, match="no text"):
        BPE(vocab_size=300).build([])


def test_other_threads_train_too():
    built = []
    thread = threading.Thread(target=lambda: built.append(BPE(vocab_size=300).build(["abc " * 9])))
    thread.start()
    thread.join()
    assert built[0] == BPE(vocab_size=300).build(["abc " * 9])


def test_an_interruption_ends_work_that_hears_nothing():
    handed = []
    begun = threading.Event()
    free = threading.Event()

    def deaf(items):
        handed.append(next(items))
        begun.set()
        free.wait(30)
        handed.extend(items)

    def interrupt():
        begun.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(deaf, map(str, range(1000)))
    helper.join()
    free.set()
    for thread in threading.enumerate():
        if thread.name == "coterie-tokenizer":
            thread.join(30)
    assert handed == ["0"]  # it ends with its next item


def test_ctrl_c_ends_a_training_that_would_take_minutes():
    code = (
        "import random, sys\n"
        "from coterie.tokenizer.bpe import BPE\n"
        "rng = random.Random(0)\n"
        "text = ''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=1 << 21))\n"
        "def texts():\n"
        "    yield text\n"
        "    print('all is read', flush=True)\n"
        "try:\n"
        "    BPE(vocab_size=20000).build(texts())\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
