"""A key that stands for others drops what earlier layers named of them, and no more."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.foundation.settings import Settings
from coterie.train.settings import TrainSettings


class Whole(Settings):
    train: TrainSettings = TrainSettings()


def laid(*layers: dict[str, object], words: tuple[str, ...] = ()) -> TrainSettings:
    named = [Layer(f"layer {number}", {"train": each}) for number, each in enumerate(layers)]
    return load_settings(Whole, [*named, overrides_layer(words)]).settings.train


def test_the_last_layer_says_in_what_a_run_is_long():
    below = {"steps": 70, "evaluate_every": 7, "batch_size": 2}
    epochs = laid(below, {"epochs": 3})
    assert (epochs.epochs, epochs.steps) == (3, 3)
    assert (epochs.evaluate_every, epochs.batch_size) == (None, 2)
    steps = laid(below, {"epochs": 3, "evaluate_every": 9}, words=("train.steps=5",))
    assert (steps.epochs, steps.steps, steps.evaluate_every) == (None, 5, 9)
    assert laid(below, {"epochs": None}).steps == 70  # which names none


def test_another_number_of_epochs_keeps_what_was_said_of_them():
    below = {"epochs": 3, "epoch_steps": 8, "evaluate_every": "2 epochs"}
    longer = laid(below, words=("train.epochs=4",))
    assert (longer.epochs, longer.steps, longer.evaluate_every) == (4, 32, "2 epochs")


@pytest.mark.parametrize("words", [(), ("train.epochs=3", "train.steps=5")])
def test_two_lengths_in_one_layer_are_refused(words):
    with pytest.raises(SettingsError, match="steps=5 and epochs=3 both say how long"):
        laid({} if words else {"epochs": 3, "steps": 5}, words=words)


def test_what_follows_from_others_is_not_written_down():
    known = laid({"epochs": 3}).with_epoch_of(8)
    assert known.steps == 24
    written = known.model_dump(mode="json")
    assert "steps" not in written
    assert laid(written) == known
    whole = load_settings(Whole, [Layer("Python", {"train": known})]).settings
    assert whole.train == known
    assert "epochs" in TrainSettings(steps=5).model_dump()
