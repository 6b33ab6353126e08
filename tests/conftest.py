"""What every test shares: shapes are checked, threads are few, places are temporary."""

from __future__ import annotations

import os

import pytest
from jaxtyping import install_import_hook

# Shape annotations are enforced under pytest only; users pay nothing for them.
install_import_hook(["coterie.model", "coterie.generate"], "beartype.beartype")

import hypothesis  # noqa: E402
import torch  # noqa: E402

# A busy machine draws examples slowly; that says nothing of what is tested.
hypothesis.settings.register_profile(
    "house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")

torch.set_num_threads(1)  # tests run side by side; two threads each would fight for the cores


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Give each test its own runs and cache, and a working directory that it may fill."""
    monkeypatch.setenv("COTERIE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the processes that tests start
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def plain_terminal():
    """Keep the terminal of whoever runs the tests out of what they see."""
    os.environ["TERM"] = "dumb"
    os.environ.pop("FORCE_COLOR", None)
    os.environ["NO_COLOR"] = "1"
