"""One watcher for the process; decoding and training look through it."""

from __future__ import annotations

import torch

from coterie.generate.session import evaluation
from coterie.generate.threads import shared_cores


def test_there_is_one_watcher_and_evaluation_looks_through_it(monkeypatch):
    looks = []
    monkeypatch.setattr(type(shared_cores()), "look", lambda self: looks.append(self))
    with evaluation(torch.nn.Identity()):
        pass
    assert looks == [shared_cores()]
