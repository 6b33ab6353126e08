"""Run directories: one run is one directory, found by name, `latest` or path.

runs/NAME/
  config.yaml     the resolved settings
  events.jsonl    everything that happened (see `foundation.events`)
  checkpoints/    step-00001000/, ...
  samples/        text written during training
  profile/        what was seen in some steps, where it was asked for
  routing.json    what its experts are used for, where that was asked
  report.html     the page made from the above
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coterie.foundation.errors import RunError, nearest
from coterie.foundation.files import explain_disk_errors, write_text_atomic
from coterie.foundation.locks import OwnedError, own
from coterie.foundation.paths import expand_home, home
from coterie.foundation.swap import restore_below, sweep

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RunDirectory:
    """The places inside one run's directory."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name: its directory's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved settings, YAML."""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """The record of all that happened, JSON lines."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The directory of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """The directory of texts written during training."""
        return self.path / "samples"

    @property
    def profile(self) -> Path:
        """The directory of what was seen in training steps; made when something is written."""
        return self.path / "profile"

    @property
    def routing(self) -> Path:
        """What its experts are used for, JSON; made by `coterie evaluate RUN routing`."""
        return self.path / "routing.json"

    @property
    def report(self) -> Path:
        """The page made from the events."""
        return self.path / "report.html"

    @classmethod
    def create(cls, root: Path | str, name: str) -> "RunDirectory":
        """Make a new run directory.

        Raises:
            RunError: the name is not usable or taken.
            OwnedError: another process writes it now.
            UserError: the disk is full or not writable.
        """
        check_name(name)
        run = cls(Path(root) / name)
        with own(run.path, "making a run", hint=_elsewhere(name)):
            run._make(new=True)
        return run

    @classmethod
    def create_fresh(cls, root: Path | str, base: str) -> "RunDirectory":
        """Make a run directory of the first free name: `base`, `base-2`, `base-3`, ...

        Of several processes that ask at once, each gets a name of its own.

        Raises:
            RunError: the name is not usable.
            UserError: the disk is full or not writable.
        """
        with own_fresh(root, base, "making a run") as run:
            run._make(new=True)
        return run

    @contextlib.contextmanager
    def owned(self, what: str, *, new: bool) -> Iterator[None]:
        """Own the run inside the block, its directories made and what a kill left in them swept.

        Args:
            what: what is done, in a word: "training".
            new: the run must not have begun before.

        Raises:
            OwnedError: another process or thread writes it now.
            RunError: it must be new, and is not.
            UserError: the disk is full or not writable.
        """
        with own(self.path, what, hint=_elsewhere(self.name)):
            self._make(new=new)
            for folder in (self.path, self.checkpoints, self.samples):
                sweep(folder)
            yield

    def _make(self, *, new: bool) -> None:
        if new and self.config.exists():
            raise RunError(
                f"There is a run “{self.name}” already, at {self.path}.",
                hint=f"Resume it with: coterie train --resume {self.name}   "
                "or choose another --name.",
            )
        with explain_disk_errors(str(self.path)):
            for folder in (self.path, self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)

    def write_config(self, text: str) -> None:
        """Write the resolved settings; from then on the directory counts as a run."""
        write_text_atomic(self.config, text)


def _elsewhere(name: str) -> str:
    return f"Wait until it has ended, or choose another --name than {name}."


@contextlib.contextmanager
def own_fresh(root: Path | str, base: str, what: str) -> Iterator[RunDirectory]:
    """Own the first name that is neither taken nor being written: `base`, `base-2`, ...

    Raises:
        RunError: the name is not usable.
        UserError: the disk is not writable.
    """
    check_name(base)
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    with contextlib.ExitStack() as owning:
        for path in (Path(root) / name for name in names):
            if os.path.lexists(path):
                continue
            try:
                owning.enter_context(own(path, what))
            except OwnedError:
                continue
            if not os.path.lexists(path):
                yield RunDirectory(path)
                return
            owning.close()  # it was made in between


def check_name(name: str) -> None:
    """Make sure that a run may have this name.

    Raises:
        RunError: it may not.
    """
    if not _NAME.fullmatch(name) or name == "latest":
        raise RunError(
            f"“{name}” cannot name a run: use letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit; “latest” is reserved."
        )


def runs_root() -> Path:
    """Return where runs live: the environment variable COTERIE_RUNS, or `runs` in this folder."""
    return Path(expand_home(os.environ.get("COTERIE_RUNS") or "runs"))


def cache_root() -> Path:
    """Return where prepared data and measurements are kept: COTERIE_CACHE or the user's cache."""
    if named := os.environ.get("COTERIE_CACHE"):
        return Path(expand_home(named))
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(expand_home(base)) if base else home() / ".cache") / "coterie"


def list_runs(root: Path | None = None) -> list[RunDirectory]:
    """Return every run under the root, the one that was active last at the end."""
    root = runs_root() if root is None else root
    if not root.is_dir():
        return []
    found = [
        RunDirectory(path.parent)
        for path in root.glob("*/config.yaml")
        if not path.parent.name.startswith(".")  # half written, see `foundation.swap`
    ]
    return sorted(found, key=_last_active)


def _last_active(run: RunDirectory) -> float:
    for file in (run.events, run.config):
        with contextlib.suppress(OSError):
            return file.stat().st_mtime
    return 0.0  # it is being removed


def find_run(target: str | Path, root: Path | None = None) -> RunDirectory:
    """Return the run that a target names: a run's name, `latest`, or a path to its directory.

    A checkpoint of it that a killed command moved aside is put back first.

    Raises:
        RunError: there is none; the message names the nearest one.
    """
    run = _find_run(target, root)
    restore_below(run.checkpoints)
    return run


def _find_run(target: str | Path, root: Path | None) -> RunDirectory:
    path = Path(target)
    if (path / "config.yaml").is_file():
        return RunDirectory(path)
    runs = list_runs(root)
    where = runs_root() if root is None else root
    if not runs:
        raise RunError(
            f"There is no run “{target}”: no runs were found in {where}/.",
            hint="Train one: coterie train quickstart   (or set COTERIE_RUNS to where yours are)",
        )
    if str(target) == "latest":
        return runs[-1]
    for run in runs:
        if run.name == str(target):
            return run
    raise RunError(
        f"There is no run “{target}” in {where}/; {nearest(str(target), [r.name for r in runs])}",
        hint="List them: coterie runs list",
    )


def fresh_name(base: str, root: Path | None = None) -> str:
    """Return the first free name of the form `base`, `base-2`, `base-3`, ..."""
    root = runs_root() if root is None else root
    name, number = base, 1
    while (root / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name
