"""Counts of steps are taken once each, however many tests ask for them."""

from __future__ import annotations

import pytest

from coterie.train.cluster import memory

_COUNTS: dict[str, object] = {}


@pytest.fixture(autouse=True)
def counted_once(monkeypatch):
    """Keep what was counted, by the settings that it is of."""
    count = memory.step_phases

    def kept(settings, precision):
        settings = settings.model_copy(update={"data": type(settings.data)()})
        key = f"{settings.model_dump_json()} {precision.name}"
        if key not in _COUNTS:
            _COUNTS[key] = count(settings, precision)
        return _COUNTS[key]

    monkeypatch.setattr(memory, "step_phases", kept)
