"""The page shows what looks into routing told, and forgets what a resumption takes back."""

import numpy as np
import pytest

from coterie.train.events import RunStarted
from coterie.visualise.reducers.watched import Watched
from coterie.visualise.report import report_page
from coterie.visualise.series import series_of


def test_the_latest_look_and_the_curves_are_shown(synthetic, look):
    events = [*synthetic(steps=20), look(10, {7: "<b>", 8: "\n"}), look(20)]
    page = report_page(series_of(events))
    assert "What experts are used for" in page
    assert "layer 1 goes from 40.0 at 10 to 80.0 at 20" in page
    assert "‘&lt;b&gt;’ ×3.2 (n=12)  ‘⏎’ ×2.0 (n=3)" in page
    assert "1:1 ×1.75" in page
    assert "Pale: the same labels dealt at random." in page
    assert "What experts are used for" not in report_page(series_of(synthetic(steps=20)))


def test_a_resumption_takes_looks_back_and_leaves_the_words(synthetic, look):
    start = next(event for event in synthetic(steps=20) if isinstance(event, RunStarted))
    events = [start, look(10), look(20, {7: "the"}), start.model_copy(update={"resumed_from": 15})]
    watched = series_of(events)[Watched]
    assert watched.last is None
    assert watched.curves.steps.tolist() == [10]
    assert (watched.word(7), watched.word(8)) == ("the", "#8")
    assert watched.curve(1, "token").tolist() == [0.75]
    assert np.isnan(watched.curve(0, "token")).all()
    assert watched.routed == ()
    again = series_of([*events, look(20)])[Watched]
    assert [layer.layer for layer in again.routed] == [1]
    assert look(10).numbers()["routing/layer_1/margin"] == pytest.approx(0.125)
