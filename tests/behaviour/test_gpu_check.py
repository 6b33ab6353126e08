"""The GPU check cannot run here, so what it would build is held to the settings as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.train.settings import RunSettings

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from gpu_checks import (
        choices,
        compiled,
        correct,
        decoding,
        names,
        precision,
        registry,
        speed,
        training,
    )

    modules = (choices, compiled, correct, decoding, names, precision, registry, speed, training)
    yield {module.__name__.rpartition(".")[2]: module for module in modules}
    for name in [name for name in sys.modules if name.startswith("gpu_checks")]:
        monkeypatch.delitem(sys.modules, name)


def test_curves_are_compared_by_their_means_spreads_and_seeds(checks):
    sides = {"float32": [1.0, 1.1, 1.2], "bfloat16": [1.1, 1.1, 1.4]}
    found = checks["precision"].compared(sides)
    assert found["means differ by"] == 0.1
    assert found["spread"] == {"float32": 0.2, "bfloat16": 0.3}
    assert found["same seed differs by"] == [0.1, 0.0, 0.2]


@pytest.mark.parametrize("tiny", [True, False])
def test_its_models_and_runs_are_valid_settings(checks, tmp_path, tiny):
    names, bench = checks["names"], checks["registry"].Bench("cpu", tiny, tmp_path, tmp_path)
    models = [*checks["correct"].PARTS.values(), *checks["decoding"].WAYS.values()]
    models += [*checks["compiled"].DECODERS.values()]
    models += [{"feedforward": each} for each in checks["correct"].EXPERTS.values()]
    models += [{"attention": {"kind": "grouped", "heads": 4} | mask}
               for mask in checks["correct"].MASKS.values()]  # fmt: skip
    for changes in models:
        names.decoder_settings(**changes)
    for model, windows in checks["speed"].shapes(bench).values():
        said = names.run_settings("text.txt", model, batch_size=windows, compile=True)
        RunSettings.model_validate(said)


def test_a_check_that_ends_its_process_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "gpu_checks").mkdir()
    for name in ("__init__", "registry"):
        source = SCRIPTS / "gpu_checks" / f"{name}.py"
        (tmp_path / "gpu_checks" / f"{name}.py").write_text(source.read_text())
    (tmp_path / "torch.py").write_text("class Tensor: ...")  # the real one takes seconds to import
    (tmp_path / "gpu_check.py").write_text((SCRIPTS / "gpu_check.py").read_text())
    (tmp_path / "gpu_checks" / "machine.py").write_text(
        "import os\n"
        "from gpu_checks.registry import Cases, SkipError, check\n"
        "@check('a.good', 'machine')\n"
        "def good(bench):\n    return {'figure': 1}\n"
        "@check('b.ends', 'machine')\n"
        "def ends(bench):\n    os._exit(9)\n"
        "@check('c.cases', 'machine')\n"
        "def some(bench):\n"
        "    cases = Cases(bench)\n"
        "    with cases('bad'):\n        raise ValueError('no')\n"
        "    with cases('fine'):\n        cases.figures['fine'] = 2\n"
        "    return cases.result()\n"
        "@check('d.skipped', 'machine')\n"
        "def skipped(bench):\n    raise SkipError('not here')\n"
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [sys.executable, "gpu_check.py", "--device", "cpu", "--out", "out"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 1, said.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [each["check"] for each in found] == ["a.good", "b.ends", "c.cases", "d.skipped"]
    assert [each["status"] for each in found] == ["good", "lost", "failed", "skipped"]
    assert found[2]["figures"] == {"fine": 2}
    assert "[bad] ValueError: no" in found[2]["problem"]
