"""A flag that does not exist leads to the flag or the setting that was meant."""

from __future__ import annotations

import pytest

from coterie.cli.app import run
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "quickstart", "--epochs", "3"], "the setting train.epochs?"),
        (["train", "quickstart", "--lr=3e-4"], "train.optimizer.learning_rate=3e-4"),
        (["train", "quickstart", "--run_name", "x"], "did you mean --name?"),
        (["train", "quickstart", "--dry"], "did you mean --dry-run?"),
        (["presets", "show", "gpt2", "--n-layer", "3"], "the setting model.layers?"),
        (["generate", "x", "--top-p", "0.9"], "the setting top_p?"),
        (["generate", "x", "--max_new_tokens=5"], "max_tokens=5"),
        (["data", "prepare", "x", "--output", "y"], "did you mean --out?"),
        (["evaluate", "x", "--lr", "3"], "choices: --"),
    ],
)
def test_unknown_flags(words, told, capsys):
    assert run(words) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_key_with_a_blank_is_explained():
    with pytest.raises(UserError, match=r"did you mean “train\.optimizer\.weight_decay=…”"):
        one_target(read_words(("quickstart", "weight decay=0.1")), "preset", "usage")
