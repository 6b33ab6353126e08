"""Processes that stay warm from test to test, and a text that they read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import processes, runs


@pytest.fixture(scope="session", autouse=True)
def _end_processes() -> Iterator[None]:
    yield
    processes.close_all()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the path of a little text; what is prepared of it goes beside it."""
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text(runs.TEXT, encoding="utf-8")
    return str(path)
