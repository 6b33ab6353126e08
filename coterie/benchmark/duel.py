"""Duels of two ways to take the same training step; see `tune`."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import torch

from coterie.benchmark.tune import Duel
from coterie.foundation.alarm import time_limit
from coterie.foundation.allocator import keep_freed_memory
from coterie.foundation.errors import UserError
from coterie.model import Decoder, DecoderSettings
from coterie.train import RunSettings
from coterie.train.choices import HOPELESS, choose_precision, product_times, short_batch
from coterie.train.compiling import give_up_compiling
from coterie.train.machine import computing_threads
from coterie.train.memory import require_memory
from coterie.train.offload import build_optimizer
from coterie.train.precision import Precision, resolve_device, resolve_precision
from coterie.train.pretraining import loader_of, prepare
from coterie.train.randomness import seed_all, set_aside
from coterie.train.roles import role_parameters
from coterie.train.session import make_stepper
from coterie.train.turns import Clock, in_turns

LIMIT = 180.0
_CYCLE = 16  # numbers of steps, for optimizers that do not move everything at each
_STEP = 2.0  # seconds; as many rows are read as such a step has time for
_HOPELESS = 4.0  # times as slow: no further turn is taken


class Bench:
    """One set of weights and one batch, on which runs of the same model meet.

    Attributes:
        settings: the run's, with what its tokenizer decides.
        precision: what it computes in as it is; measured where that is `auto`.
        rows: windows of a step here; fewer than the run's where a whole step would take long.
    """

    def __init__(
        self,
        settings: RunSettings,
        seconds: float,
        limit: float,
        tell: Callable[[str], None],
        clock: Clock = time.perf_counter,
    ) -> None:
        """Prepare the run's data and build its model.

        Args:
            seconds: for each duel, about.
            limit: seconds after which a duel is broken off, compiling included.

        Raises:
            UserError: the run itself would be refused.
        """
        self.device = resolve_device(settings.train.device)
        self.settings, store = prepare(settings, tell)
        self._seconds, self._limit, self._clock = seconds, limit, clock
        require_memory(self.settings, choose_precision(self.settings, self.device))
        if self.device.type == "cpu":
            keep_freed_memory()  # as a run does
        seed_all(self.settings.seed)
        model = self.settings.model
        self._decoder = model.build().to(self.device).train()
        self._decoder.activation_checkpointing = settings.train.activation_checkpointing
        self._optimizer = build_optimizer(self.settings.train, role_parameters(self._decoder))
        batch = loader_of(self.settings, store, self.device).batch(0)
        short = short_batch(self.settings, batch)

        def rehearse(precision: Precision) -> None:
            stepper = make_stepper(self.settings, self._decoder, self._optimizer, precision)
            stepper.rehearse(short)

        self.precision = choose_precision(self.settings, self.device, None, rehearse)
        rehearse(self.precision)
        begin = clock()
        rehearse(self.precision)
        row = (clock() - begin) * model.context / short.tokens.numel()
        size = settings.train.batch_size
        able = (n for n in range(2, size + 1) if size % n == 0 and n * row <= _STEP)
        self.rows = max(able, default=1)
        self._batch = batch.part(self.rows, model.context)

    def __call__(self, best: RunSettings, other: RunSettings, turns: int) -> Duel:
        """Let a run meet the best so far, in so many turns at least.

        Raises:
            UserError: it does not fit into memory, its parts are not there, or its products are
                hopelessly slow.
            TimeoutError: it was broken off.
        """
        require_memory(other, self._precision_of(other))
        self._require_speed(self._precision_of(best), self._precision_of(other))
        try:
            with set_aside(), self._sides(best, other) as sides, time_limit(self._limit):
                return self._meet(*sides, turns, patient=other.train.compile is True)
        except TimeoutError:
            if other.train.compile:
                give_up_compiling()
            raise

    def _meet(
        self, ours: Callable[[], None], theirs: Callable[[], None], turns: int, *, patient: bool
    ) -> Duel:
        ours()
        begin = self._clock()
        theirs()
        first = self._clock() - begin
        usual = in_turns({"best": ours}, 0.0, self._clock)["best"][0]
        hopeless = first > _HOPELESS * usual and not patient
        ways = {"best": ours, "other": theirs}
        taken = in_turns(ways, 0.0 if hopeless else self._seconds, self._clock,
                         least=1 if hopeless else turns)  # fmt: skip
        tokens = self._batch.tokens.numel()
        pairs = zip(taken["best"], taken["other"], strict=True)
        return Duel(
            rates=tuple(tokens / each for each in taken["other"]),
            gains=tuple(a / b for a, b in pairs),
            first=first,
        )

    def _require_speed(self, best: Precision, other: Precision) -> None:
        """Refuse a precision without units: a step in it might take an hour, without a pause."""
        if other.name == best.name or self.device.type != "cpu":
            return
        times = product_times(best, other, self._clock)
        gain = times[best.name] / times[other.name]
        if gain < HOPELESS:
            raise UserError(f"a bare product runs {gain:.2g} times as fast in {other.name} here")

    @contextlib.contextmanager
    def _sides(self, *runs: RunSettings) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
        """Return what takes a step of each of two runs; threads are as before afterwards."""
        present = torch.get_num_threads()
        with computing_threads(present):
            first, second = (self._way(run, present) for run in runs)
            yield first, second

    def _way(self, run: RunSettings, threads: int) -> Callable[[], None]:
        rows = min(run.train.micro_batch_size, self.rows)
        pieces = self.rows // rows if self.rows % rows == 0 else self.rows
        train = run.train.model_copy(
            update={"batch_size": self.rows, "gradient_accumulation": pieces}
        )
        here = run.model_copy(update={"train": train})
        stepper = make_stepper(
            here, self._twin(run.model), self._optimizer, self._precision_of(run),
            compiled=run.train.compile is True,
        )  # fmt: skip
        count = run.train.threads or threads
        numbers = itertools.cycle(range(_CYCLE))

        def step() -> None:
            if torch.get_num_threads() != count:
                torch.set_num_threads(count)
            float(stepper(next(numbers), self._batch).metrics.loss)  # waits for the device

        return step

    def _precision_of(self, run: RunSettings) -> Precision:
        asked = run.train.precision
        return self.precision if asked == "auto" else resolve_precision(asked, self.device)

    def _twin(self, model: DecoderSettings) -> Decoder:
        """Return the decoder, or one of other settings that shares its weights."""
        if model == self._decoder.settings:
            return self._decoder
        twin = model.build().to(self.device).train()
        twin.activation_checkpointing = self._decoder.activation_checkpointing
        twin.load_state_dict(self._decoder.state_dict(keep_vars=True), assign=True)
        return twin
