"""Errors: one tree, each with words for the reader."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import (
    CheckpointError,
    CoterieError,
    Interrupted,
    MissingExtraError,
    TrainingError,
    UserError,
    nearest,
    require,
)  # fmt: skip


def test_exit_codes_tell_whose_turn_it_is():
    assert CheckpointError("x").exit_code == UserError("x").exit_code == 2
    assert TrainingError("x").exit_code == CoterieError("x").exit_code == 1
    assert Interrupted("x").exit_code == 130
    assert isinstance(UserError("x"), ValueError)


def test_message_and_hint_are_told_together():
    assert str(UserError("wrong", hint="run that")) == "wrong\nrun that"
    assert str(UserError("wrong")) == "wrong"


def test_nearest_guesses_and_lists():
    assert nearest("lerning", ["learning", "other"]).startswith("did you mean “learning”?")
    assert nearest("zzz", ["a", "b"]) == "choices: a, b"
    assert "(30 in all)" in nearest("zzz", [f"n{i}" for i in range(30)])
    assert nearest("zzz", []) == "there is nothing to choose from"


def test_a_missing_extra_names_the_line_to_run():
    with pytest.raises(MissingExtraError, match="not installed") as caught:
        require("surely_not_a_module", "wandb")
    assert 'pip install "coterie[wandb]"' in caught.value.hint
    assert require("json", "x").dumps({}) == "{}"


def test_a_broken_dependency_of_an_extra_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import surely_not_a_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_a_module"):
        require("broken_extra", "x")
