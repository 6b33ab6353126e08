"""The largest micro-batch that fits into memory, found with real steps of a state that is not kept.

On a GPU a step fits if it does not run out of memory; on the CPU, which would rather end the
process than say so, if the process never held more than a limit. Nothing is tried there that a line
through what was measured puts well beyond the limit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from coterie.foundation.allocator import resident_bytes, return_freed_memory
from coterie.foundation.errors import UserError
from coterie.train import RunSettings
from coterie.train.choices import choose_precision
from coterie.train.memory import role_parameters
from coterie.train.offload import build_optimizer
from coterie.train.precision import resolve_device
from coterie.train.pretraining import loader_of, prepare
from coterie.train.randomness import seed_all, set_aside
from coterie.train.session import make_stepper
from coterie.train.step import NoRoomError

SHARE = 0.8
"""Of the memory that is free, how much a run may take where no limit is given."""
_BEYOND = 1.1  # times the limit: a step that is expected to need more is not tried
_CLEAR = Path("/proc/self/clear_refs")

Tried = tuple[int, int | None, bool]
"""Rows at once, the bytes held at most (None: not tried, or not known), and whether they fit."""


@dataclass(frozen=True)
class Largest:
    """What fits.

    Attributes:
        rows: the most windows at once that fit; 0 where not even one does.
        pieces: into how few equal micro-batches a step's batch is then cut; None where none fit.
        limit: bytes; None on a GPU, where its memory is the limit.
        tried: in order.
    """

    rows: int
    pieces: int | None
    limit: int | None
    tried: tuple[Tried, ...]


def find_largest(most: int, try_rows: Callable[[int], bool]) -> int:
    """Return the largest number of rows up to `most` that fits, 0 if none does, by bisection.

    Doubled until it does not fit, so that nothing much larger than what fits is ever tried.
    """
    fits, rows = 0, 1
    while try_rows(rows):
        fits = rows
        if rows == most:
            return most
        rows = min(2 * rows, most)
    beyond = rows
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if try_rows(middle):
            fits = middle
        else:
            beyond = middle
    return fits


def find_micro_batch(
    settings: RunSettings, limit: int | None, tell: Callable[[str], None]
) -> Largest:
    """Return the largest micro-batch of a run that fits, up to its whole batch.

    Args:
        settings: the run.
        limit: bytes that the process may hold on a CPU; None: what it holds and `SHARE` of what is
            free. Must be None on a GPU.
        tell: told in a sentence what is tried.

    Raises:
        UserError: the run itself would be refused, or a GPU's memory was to be limited.
    """
    trials = _Trials(settings, limit, tell)
    rows = find_largest(settings.train.batch_size, trials)
    size = settings.train.batch_size
    pieces = next((n for n in range(1, size + 1) if size % n == 0 and size // n <= rows), None)
    return Largest(rows, pieces, trials.limit, tuple(trials.tried))


class _Trials:
    """One set of weights and moments, which take a step with as many rows as asked for."""

    def __init__(
        self, settings: RunSettings, limit: int | None, tell: Callable[[str], None]
    ) -> None:
        self._device = resolve_device(settings.train.device)
        on_gpu = self._device.type == "cuda"
        if on_gpu and limit is not None:
            raise UserError(
                "A limit is for the CPU; a GPU's own memory is its limit.", hint="Leave --memory."
            )
        if not on_gpu and not _CLEAR.exists():
            raise UserError(
                f"How much memory a step takes on {self._device} cannot be measured here.",
                hint="coterie plan PRESET estimates it.",
            )
        settings, store = prepare(settings, tell)
        seed_all(settings.seed)
        decoder = settings.model.build().to(self._device).train()
        decoder.activation_checkpointing = settings.train.activation_checkpointing
        optimizer = build_optimizer(settings.train, role_parameters(decoder))
        whole = settings.train.model_copy(update={"gradient_accumulation": 1})
        settings = settings.model_copy(update={"train": whole})
        precision = choose_precision(settings, self._device)
        self._stepper = make_stepper(settings, decoder, optimizer, precision)
        self._batch = loader_of(settings, store, self._device).batch(0)
        self._context = settings.model.context
        self.limit = None if on_gpu else limit or resident_bytes() + int(SHARE * _free())
        self._tell, self._steps = tell, 0
        self._measured: dict[int, int] = {}
        self.tried: list[Tried] = []

    def __call__(self, rows: int) -> bool:
        expected = self._expected(rows)
        if self.limit is not None and expected is not None and expected > _BEYOND * self.limit:
            self._note(rows, None, fits=False)
            return False
        fits, held = self._take(rows)
        if held is not None:
            self._measured[rows] = held
            fits = fits and (self.limit is None or held <= self.limit)
        self._note(rows, held, fits=fits)
        return fits

    def _expected(self, rows: int) -> int | None:
        """Return the bytes that a line through the two largest steps measured promises."""
        known = sorted(self._measured.items())[-2:]
        if len(known) < 2:
            return None
        (few, low), (many, high) = known
        return int(high + (high - low) / (many - few) * (rows - many))

    def _take(self, rows: int) -> tuple[bool, int | None]:
        """Take a step; return whether there was memory for it, and how much was held at most."""
        self._reset()
        batch = self._batch.part(rows, self._context)
        try:
            with set_aside():
                self._stepper(self._steps, batch)
        except NoRoomError:
            return False, None
        self._steps += 1
        whole, self._stepper.pieces = self._stepper.pieces == 1, 1  # else it was cut to fit
        return whole, self._peak() if whole else None

    def _reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        return_freed_memory()
        _CLEAR.write_text("5")  # proc(5): the peak of the resident size begins anew

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        return resident_bytes("VmHWM")

    def _note(self, rows: int, held: int | None, *, fits: bool) -> None:
        self.tried.append((rows, held, fits))
        size = "" if held is None else f" with {held / 2**30:.2f} GiB held"
        self._tell(f"{rows} rows {'fit' if fits else 'do not fit'}{size}.")


def _free() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (each for each in lines if each.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024
