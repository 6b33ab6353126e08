"""Alignment from Python: a run and rows become a new run, shown as it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coterie
from coterie.align.methods import aligned_settings, method_of
from coterie.align.reinforce.method import PromptData, ReinforceMethod
from coterie.align.reinforce.pairs import preference_pairs
from coterie.api.given import layer_of
from coterie.api.model import tell_damaged
from coterie.api.training import make_run, run_training
from coterie.checkpoint import LoadedModel, load_model
from coterie.foundation.files import write_json_atomic
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.tokenizer.saving import FILE_NAME, save_tokenizer
from coterie.train import RunSettings, TrainResult
from coterie.train.plan import Plan
from coterie.train.plan import plan as plan_of
from coterie.visualise.console import note

if TYPE_CHECKING:
    from coterie.api.runs import Run

ORIGIN = "origin.json"
_POLICY = {
    "steps": 300,
    "evaluate_every": 50,
    "checkpoint_every": 50,
    "optimizer": {"kind": "adamw", "learning_rate": 3e-4, "beta2": 0.95, "weight_decay": 0.0},
    "schedule": {"kind": "linear", "warmup": 0.03},
    "clip": {"kind": "norm", "max_norm": 1.0},
}
_SHORT = {"epochs": 3, "batch_size": 8, "schedule": {"kind": "cosine", "warmup": 0.1}}
USUAL: dict[str, dict[str, Any]] = {
    "sft": {**_SHORT, "optimizer": {"kind": "adamw", "learning_rate": 2e-4}},
    "dpo": {**_SHORT, "optimizer": {"kind": "adamw", "learning_rate": 2e-5, "weight_decay": 0.0}},
    "kto": {**_SHORT, "optimizer": {"kind": "adamw", "learning_rate": 2e-5, "weight_decay": 0.0}},
    "reward-model": {**_SHORT, "optimizer": {"kind": "adamw", "learning_rate": 2e-4}},
    "grpo": _POLICY,
    "reinforce": _POLICY,
    "ppo": _POLICY,
    "rejection": _POLICY,
}
"""How each method trains unless told otherwise."""
_VALUED = ("ppo", "reward-model")  # have a value head


def align(
    kind: str,
    target: str | Path,
    data: str | Path = "",
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
) -> Run:
    """Align a run and return the new one.

        run = align("sft", "mine", "rows.jsonl", {"train.epochs": 2, "align.lora.rank": 8})

    Args:
        kind: the method: sft, dpo, kto, ….
        target: the run to begin with, its name, `latest` or path; or a checkpoint.
        data: the rows.
        settings: what to change, by dotted keys or nested.
        name: of the new run; None: the old one's with the method.

    Raises:
        UserError: run, rows or settings cannot be used.
        TrainingError, Interrupted: as for `coterie.train`.
    """
    layers = [layer_of(settings)] if settings else []
    base = load_model(target, on_damaged=tell_damaged)
    resolved = aligned(kind, base, {"data": str(data)}, layers)
    run, _ = run_alignment(kind, base, resolved, name)
    return coterie.Run(run)


def aligned(
    kind: str, base: LoadedModel, said: Mapping[str, Any], layers: Sequence[Layer]
) -> RunSettings:
    """Return the settings of a run that aligns a model; see `aligned_settings`."""
    model = {"value": {}} if kind in _VALUED else None
    return aligned_settings(base, {"kind": kind, **said}, USUAL[kind], layers, model)


def run_alignment(
    kind: str, base: LoadedModel, settings: RunSettings, name: str | None
) -> tuple[RunDirectory, TrainResult]:
    """Make a run, which keeps the tokenizer and where it began, and train it under the display."""
    source = base.path.absolute().parents[1].name
    run = make_run(name, f"{source}-{kind}")
    with _forgetting(run):
        save_tokenizer(base.tokenizer, run.path / FILE_NAME)
        write_json_atomic(
            run.path / ORIGIN, {"source": str(base.path), "architecture": f"{source}, {kind}"}
        )
        result = run_training(settings, run, preset=f"{source}, {kind}")
    return run, result


def plan_alignment(settings: RunSettings) -> tuple[RunSettings, Plan]:
    """Return the settings of an alignment run with what its rows decide, and what it would take.

    Raises:
        UserError: the run itself would be refused.
    """
    method = method_of(settings, None)
    assert method is not None
    settings, data = method.prepare(settings, note)
    return settings, plan_of(settings, vocab_size=data.tokenizer.vocab_size, method=method)


def made_pairs(settings: RunSettings, count: int) -> Iterator[dict[str, Any]]:
    """Yield pairs for `coterie align dpo`, by the rewards of settings for rejection tuning.

    Raises:
        UserError: settings or prompts cannot be used.
    """
    method = method_of(settings, None)
    assert isinstance(method, ReinforceMethod)
    _, data = method.prepare(settings, note)
    assert isinstance(data, PromptData)
    yield from preference_pairs(method, data, count, settings.seed)


@contextlib.contextmanager
def _forgetting(run: RunDirectory) -> Iterator[None]:
    """Remove what was written into a run that could not even begin."""
    try:
        yield
    except BaseException:
        if not run.config.exists():
            for name in (FILE_NAME, ORIGIN):
                (run.path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                run.path.rmdir()
        raise
