"""`coterie train --devices N`: a command becomes several processes, and one of them shows it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.layers import Layer, file_layer
from coterie.foundation.records import read_json
from coterie.foundation.runs import RunDirectory, find_run, runs_root

if TYPE_CHECKING:
    from coterie.parallel.ranks import Ranks
    from coterie.train import RunSettings, TrainResult
    from coterie.train.look import Look


class Where(NamedTuple):
    """Where a command's processes run."""

    devices: int | None
    nodes: int
    rendezvous: str | None
    max_restarts: int

    @property
    def several(self) -> bool:
        """Whether processes are to be started."""
        return self.devices is not None or self.nodes > 1 or self.rendezvous is not None


@contextlib.contextmanager
def together(
    settings: RunSettings | None, resumed: str = "latest", layers: Sequence[Layer] = ()
) -> Iterator[Ranks]:
    """Join the processes of this run, if a launcher started several.

    Args:
        settings: of a new run; None: the one named `resumed` goes on, with its own.
        layers: what is said beside these.
    """
    from coterie.train import run_settings

    if settings is None:
        with contextlib.suppress(CoterieError):  # all processes together tell what is wrong
            settings = run_settings([file_layer(find_run(resumed).config), *layers]).settings
    asked = settings and settings.parallel
    engine = asked is not None and asked.deepspeed is not None
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not engine:
        from coterie.parallel.ranks import ALONE

        yield ALONE
        return
    from coterie.parallel import Parallel
    from coterie.parallel.launch import joined

    with joined((asked or Parallel()).timeout, alone=engine) as ranks:
        yield ranks


def deepspeed_word(path: Path) -> str:
    """Return a JSON file of DeepSpeed's as a word that says the same.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return f"parallel.deepspeed={json.dumps(read_json(path))}"
    except FileNotFoundError:
        raise UserError(f"There is no {path}.", hint="--deepspeed names a JSON file.") from None


def trained(
    settings: RunSettings, name: str | None, target: str, look: Look, ranks: Ranks
) -> tuple[TrainResult, RunDirectory]:
    """Train a new run, or go on with it where its processes were started anew."""
    from coterie.api.training import make_run, resume_training, run_training
    from coterie.parallel.launch import restarts

    begun = RunDirectory(runs_root() / name) if name and restarts() else None
    if begun is not None and ranks.from_first(begun.config.exists):
        return resume_training(begun, [], [], look=look, ranks=ranks), begun
    run = ranks.from_first(lambda: make_run(name, Path(target).stem))
    return run_training(settings, run, preset=target, look=look, ranks=ranks), run


def launched(
    words: list[str],
    settings: RunSettings | None,
    name: str | None,
    base: str,
    where: Where,
) -> int:
    """Start the processes of a run that can be divided so, and wait for them.

    Args:
        words: the command's, flags included.
        settings: of a new run; None: one is resumed.
        name: the run's, if it was given.
        base: what it is named after otherwise.
        where: its processes.
    """
    from coterie.api.training import make_run
    from coterie.parallel import Parallel
    from coterie.parallel.launch import launch
    from coterie.train.zero import zero_config

    devices, nodes, rendezvous, max_restarts = where
    resume, devices = settings is None, devices or 1
    if nodes > 1 and not (rendezvous and (name or resume)):
        raise UserError(
            "Several machines need --rendezvous HOST:PORT, and --name, the same on each.",
            hint="coterie train PRESET --devices 8 --nodes 2 --rendezvous node0:29500 --name RUN",
        )
    if settings is not None:
        rows = {stage.context: stage.rows for stage in settings.stages.stages}
        layout = settings.parallel or Parallel()
        pieces = settings.train.gradient_accumulation
        layout.require(devices * nodes, settings.model, rows, pieces)
        if layout.deepspeed is not None:
            zero_config(settings, devices * nodes)
        if nodes == 1:
            name = make_run(name, base).name  # one name, however often the processes start
    given = ["train", *words, *(["--resume"] if resume else ["--name", str(name)])]
    return launch(
        given, devices=devices, nodes=nodes, rendezvous=rendezvous, max_restarts=max_restarts
    )
