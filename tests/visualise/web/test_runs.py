"""The board shows what the runs' records say, and follows them."""

import pytest

from coterie.foundation.errors import UserError
from coterie.foundation.event_log import EventLog
from coterie.foundation.runs import RunDirectory
from coterie.train.events import (
    Evaluated,
    ExpertWatched,
    LayerLoad,
    LayerWatched,
    LoadMeasured,
    RoutingWatched,
)
from coterie.visualise.web.runs import Board
from tests.visualise.web.conftest import step


def test_a_run_is_followed_while_it_grows(tmp_path):
    run = RunDirectory.create(tmp_path, "mine")
    run.config.write_text("model: {}\n")
    broken = RunDirectory.create(tmp_path, "broken")
    broken.config.write_text("model: {}\n")
    broken.events.mkdir()
    board = Board(lambda: [broken, run])
    assert board.curves("mine")["loss"] == []
    with EventLog(run.events) as log:
        log(step(1, 4.0))
        loads = LayerLoad(layer=1, load=[30, 10], dropped=0)
        log(LoadMeasured(step=1, steps=1, layers=[loads]))
        assert board.curves("mine")["loss"] == [[1, 4.0]]
        log(step(2, 3.0))
        looked = LayerWatched(
            layer=1, residual=1, attention=1, feedforward=1, load=(3, 1), token=0.5, token_null=0.1,
            position=0.2, position_null=0.15,
            experts=(ExpertWatched(weight=1.5, position=0.5, favourites=((7, 4, 2.5),)),),
        )  # fmt: skip
        log(RoutingWatched(step=2, tokens=4, layers=(looked,), words={7: "x"}))
        log(Evaluated(step=2, split="valid", loss=3.5, tokens=10, characters=10, seconds=1.0))
    found = board.curves("mine")
    assert [each[0] for each in found["loss"]] == [1, 2]
    assert found["validation"] == [[2, 3.5]]
    assert found["loads"] == [{"layer": 1, "steps": [1], "share": [[1.5, 0.5]]}]
    (told,) = found["told"]
    assert (told["token"], told["token_null"]) == ([[2, 0.5]], [[2, 0.1]])
    assert told["experts"] == [{"weight": 1.5, "favourites": [["x", 4, 2.5]]}]
    mine, other = board.listing()
    assert mine["owned"] is False
    assert (mine["name"], mine["steps"], mine["validation_loss"]) == ("mine", 2, 3.5)
    assert (other["status"], "regular file" in other["problem"]) == ("unreadable", True)


def test_only_runs_of_the_list_are_read(tmp_path):
    board = Board(list)
    for name in ("mine", "../../etc", "/etc/passwd"):
        with pytest.raises(UserError, match="no run"):
            board.curves(name)
