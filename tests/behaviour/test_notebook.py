"""The notebook of docs/ trains, plots, generates and shows all of it, as a notebook would.

IPython is replaced by what the package asks of it: a shell by its name, and display handles.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from coterie.visualise import console as consoles
from coterie.visualise.console import SafeConsole

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


class ZMQInteractiveShell:
    """What rich takes for a notebook's shell."""


@pytest.fixture
def shown(monkeypatch) -> list[Any]:
    """Pretend to be in a notebook; return what is displayed, replaced outputs in their place."""
    outputs: list[Any] = []

    def display(thing: Any = None, display_id: bool = False, **_: Any) -> Any:
        outputs.append(thing)
        place = len(outputs) - 1
        return types.SimpleNamespace(update=lambda new: outputs.__setitem__(place, new))

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    package = types.ModuleType("IPython")
    package.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks
    package.__spec__ = types.SimpleNamespace(name="IPython")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    notebook = SafeConsole(stderr=True)
    notebook._write_buffer = lambda: notebook._buffer.clear()  # rich would display it itself
    assert notebook.is_jupyter
    for name in ("coterie.api.training", "coterie.api.progress", "coterie.visualise.console"):
        monkeypatch.setattr(f"{name}.stderr", notebook)
    return outputs


def _run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line, if that is an expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_three_lines_train_plot_and_generate(shown, places):
    cells = [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    (places / "book.txt").write_text("ROMEO: to be, or not to be, that is the question:\n" * 60)
    small = '{"train.steps": 4, "scale": "tiny", "data.source": "book.txt"}'
    assert sum('{"train.steps": 200}' in cell for cell in cells) == 1
    names: dict[str, Any] = {}
    results = [_run(cell.replace('{"train.steps": 200}', small), names) for cell in cells]
    _, _, figure, text, losses, score, runs = results
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(text.tokens) == 40
    assert "ROMEO:" in text._repr_html_()
    assert losses.step.tolist() == [4]
    assert score._repr_html_().count("<span") == len(score.token_logprobs) > 10
    assert "<td>quickstart</td>" in runs._repr_html_()
    panel = shown[0]._repr_html_()  # drawn before the first step, replaced since
    assert "finished" in panel
    assert "quickstart" in panel
    assert consoles.stderr.is_jupyter
