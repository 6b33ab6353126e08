"""Runs that read a stream: killed and resumed they end in the same bits as those never stopped."""

from __future__ import annotations

import pytest

from coterie.checkpoint import list_checkpoints
from coterie.checkpoint.layout import MODEL, OPTIMIZER, STATE
from coterie.data import batches
from coterie.data.streaming import StreamedTexts
from coterie.foundation.errors import DataError
from coterie.foundation.records import read_json
from coterie.train import train
from coterie.train.proof import prove_resume

EDU = {"stream": {"block": 2000, "head": 4000}, "split": "documents", "valid_fraction": 0.2}


@pytest.fixture
def settings(tiny, tmp_path, edu):
    folder = edu(tmp_path / "edu", documents=36)
    source = {"source": str(folder), "packing": "isolated", "augment": ["case"], **EDU}
    return tiny(
        data=source, train={"steps": 40, "batch_size": 8, "checkpoint_every": 4, "keep": 20}
    )


class KilledError(BaseException):
    """As a kill comes: not told to anybody."""


def test_a_killed_run_goes_on_bit_by_bit(settings, new_run, monkeypatch, tmp_path):
    whole, killed = new_run("whole"), new_run("killed")
    told = []
    train(settings, whole, preset="tiny", observers=[lambda event: told.append(str(event))])
    assert any("begins anew" in each for each in told)
    state = read_json(list_checkpoints(whole.checkpoints)[-1] / STATE)
    assert state["stream"]["epoch"] > 0

    step_of_loader = batches.BatchLoader.batch

    def dying(self, index):
        if self._stream and index in (11, 22):
            monkeypatch.setattr(batches.BatchLoader, "batch", later)
            raise KilledError
        return step_of_loader(self, index)

    def later(self, index):
        if self._stream and index == 22:
            monkeypatch.setattr(batches.BatchLoader, "batch", step_of_loader)
            raise KilledError
        return step_of_loader(self, index)

    monkeypatch.setattr(batches.BatchLoader, "batch", dying)
    for resume in (False, True):
        with pytest.raises(KilledError):
            train(settings, killed, preset="tiny", resume=resume)
    read = []
    after = StreamedTexts.after
    monkeypatch.setattr(
        StreamedTexts,
        "after",
        lambda self, place, tell: read.append(place) or after(self, place, tell),
    )
    train(settings, killed, preset="tiny", resume=True)
    assert tuple(read[0]) > (0, 0, 0)  # not from the beginning
    pairs = zip(
        list_checkpoints(whole.checkpoints), list_checkpoints(killed.checkpoints), strict=True
    )
    for one, other in pairs:
        for name in (MODEL, OPTIMIZER):
            assert (one / name).read_bytes() == (other / name).read_bytes()
        assert read_json(one / STATE)["stream"] == read_json(other / STATE)["stream"]


def test_a_stream_that_changed_is_refused_and_its_run_proves_itself(settings, new_run, tmp_path):
    run = new_run("run")
    shorter = settings.train.model_copy(update={"steps": 6})
    settings = settings.model_copy(update={"train": shorter})
    train(settings, run, preset="tiny")
    assert prove_resume(run, 4).equal
    last = sorted((tmp_path / "edu").iterdir())[-1]
    last.unlink()
    longer = settings.train.model_copy(update={"steps": 8})
    with pytest.raises(DataError, match=last.name):
        train(settings.model_copy(update={"train": longer}), run, preset="tiny", resume=True)
