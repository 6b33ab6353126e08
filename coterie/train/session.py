"""Everything that a run needs while it trains, built from its settings in one place."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from coterie.batch import TokenBatch
from coterie.checkpoint.group import Group
from coterie.checkpoint.state import ChoicesState
from coterie.data.curriculum import Stages
from coterie.data.streamed import StreamedRows
from coterie.foundation.allocator import keep_freed_memory
from coterie.foundation.events import Event
from coterie.foundation.runs import RunDirectory
from coterie.generate import Engine
from coterie.generate.threads import shared_cores
from coterie.model import Decoder
from coterie.parallel.ranks import ALONE, Ranks
from coterie.parallel.together import Together
from coterie.parallel.zero import Zero
from coterie.tokenizer.interface import Tokenizer
from coterie.train.average import WeightAverage
from coterie.train.choices import choose_precision, short_batch
from coterie.train.compiled_blocks import CompiledBlocks
from coterie.train.compiling import (
    choose_compile,
    keep_compiled_code,
    missing_compiler,
    require_compiler,
    require_one_recording,
)
from coterie.train.divided import DividedTrainable, divide, prepared
from coterie.train.memory import require_memory
from coterie.train.method import Batches, Method, RunData, Trainable
from coterie.train.offload import build_optimizer, require_elsewhere
from coterie.train.optimizer import Optimizer
from coterie.train.precision import Precision, resolve_device
from coterie.train.pressure import MemoryPressure, reader
from coterie.train.pretraining import Pretraining
from coterie.train.progress import Progress
from coterie.train.randomness import seed_all, set_aside
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings, TrainSettings
from coterie.train.step import Stepper
from coterie.train.zero import start_zero


@dataclass
class Session:
    """A run in training; all its checkpoints carry its `identity`, which a resumed one keeps.

    What its method has to tell goes to `publish`.
    """

    settings: RunSettings
    run: RunDirectory
    store: RunData
    decoder: Decoder
    stepper: Stepper
    precision: Precision
    method: Method = field(default_factory=Pretraining)
    compiled: bool = False
    progress: Progress = field(default_factory=Progress)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    stream: StreamedRows | None = None
    publish: Callable[[Event], None] = lambda event: None
    ranks: Ranks = ALONE
    together: Together | None = None

    @property
    def group(self) -> Group:
        """All processes of this run."""
        return Group(None if self.together is None else self.together.everyone)

    @property
    def saving(self) -> Group:
        """The same where checkpoints are written, perhaps while steps go on."""
        return Group(None if self.together is None else self.together.saving)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run's store."""
        return self.store.tokenizer

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step reads, at full length."""
        return self.stages.budget

    @functools.cached_property
    def stages(self) -> Stages:
        """The shapes of the run's batches, step by step."""
        return self.settings.stages

    def loader(self) -> Batches:
        """Return the batches of this run; batch i is what step i trains on."""
        return self.method.loader(self)

    @property
    def first_row(self) -> int:
        """The first row of the next step, through all steps so far, of a run without stages."""
        return self.progress.step * self.settings.train.batch_size

    def replica_engine(self) -> Engine | None:
        """Return an engine of a divided model's whole copy on the first process; all call it."""
        assert self.together is not None
        with self.together.whole():
            tensors = self.together.gathered(self.decoder.state_dict())
            if not self.ranks.is_first:
                return None
            with set_aside():
                copy = self.settings.model.build().to(self.precision.device)
            copy.load_state_dict(tensors, strict=False)
        return Engine(copy, self.tokenizer)

    def engine(self) -> Engine:
        """Return an engine that writes with the model as it is at the time."""
        return Engine(self.decoder, self.tokenizer)


def open_session(
    settings: RunSettings,
    run: RunDirectory,
    tell: Callable[[str], None] = lambda message: None,
    kept: ChoicesState | None = None,
    method: Method | None = None,
    ranks: Ranks = ALONE,
) -> Session:
    """Prepare the data if need be and build model and optimizer with the weights of step 0.

    Args:
        settings: the run's.
        run: its directory.
        tell: told in a sentence what takes long.
        kept: what the run chose by measuring when it began, if it is resumed.
        method: what it trains on and from; None: text, from drawn weights.
        ranks: the processes that train it at once.

    Raises:
        UserError: settings, data or device cannot be used.
    """
    device = _device_of(settings.train)
    method = Pretraining() if method is None else method
    settings, store = prepared(settings, method, tell, ranks)
    require_memory(settings, choose_precision(settings, device, kept))
    method.require(settings, store, device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = settings.train.cudnn_benchmark
    seed_all(settings.seed)
    decoder = settings.model.build().to(device).train()
    decoder.activation_checkpointing = settings.train.activation_checkpointing
    method.begin(decoder, store, tell)
    together = divide(settings, decoder, ranks, device)
    trainable, optimizer = moves(settings, decoder, method, together)
    made = functools.partial(
        make_stepper, settings, decoder, optimizer, method=method, trainable=trainable,
        together=together,
    )  # fmt: skip
    example = functools.partial(method.example, settings, store, device)
    read = functools.cache(lambda: short_batch(settings, example()))

    def rehearse(as_in: Precision) -> None:
        made(as_in).rehearse(read())

    with set_aside():
        precision = choose_precision(settings, device, kept, rehearse)
    stepper, compiled = made(precision), False
    if settings.train.compile:
        shared_cores().hold()  # what is compiled is compiled again for each number of threads
        stepper, compiled = _compiled(settings, example, stepper, kept, tell, made)
    equip(stepper, settings, kept, tell, ranks)
    if device.type == "cuda" and settings.train.cuda_graph and trainable.recordable:
        stepper.record()
    stream = method.stream(settings, store, tell)
    found = settings, run, store, decoder, stepper, precision, method, compiled
    return Session(*found, stream=stream, ranks=ranks, together=together)


def moves(
    settings: RunSettings, decoder: Decoder, method: Method, together: Together | None
) -> tuple[Trainable, Optimizer]:
    """Return what moves of a decoder, which may be divided, and what moves it."""
    if together is None:
        trainable = method.trainable(decoder)
        return trainable, build_optimizer(settings.train, trainable.parameters)
    if isinstance(together, Zero):
        return start_zero(settings, together)
    divided = DividedTrainable(decoder)
    return divided, divided.optimizer(settings.train.optimizer, together.stage)


def equip(
    stepper: Stepper,
    settings: RunSettings,
    kept: ChoicesState | None,
    tell: Callable[[str], None],
    ranks: Ranks,
) -> None:
    """Give a stepper what it keeps beside the decoder, as far as the run asks for it."""
    device = stepper.precision.device
    stepper.tell = tell
    if kept is not None and kept.device == device.type and kept.pieces is not None:
        stepper.pieces = kept.pieces
    if settings.train.dynamic_batch:
        used = reader(device)
        stepper.pressure = MemoryPressure(
            lambda: ranks.most(used()), stepper.pieces, settings.train.batch_size
        )
    if settings.train.ema is not None:
        divided = stepper.trainable.parameters
        averaged = role_parameters(stepper.decoder) if stepper.together is None else divided
        stepper.average = WeightAverage(averaged, settings.train.ema)


def _device_of(train: TrainSettings) -> torch.device:
    """Return where a run computes, after making sure that it can as it says."""
    device = resolve_device(train.device)
    if train.compile is True:
        require_compiler(device)
    require_one_recording(train, device)
    require_elsewhere(train.offload, device)
    return device


def make_stepper(
    settings: RunSettings,
    decoder: Decoder,
    optimizer: Optimizer,
    precision: Precision,
    *,
    compiled: bool = False,
    method: Method | None = None,
    trainable: Trainable | None = None,
    together: Together | None = None,
) -> Stepper:
    """Return what takes the steps of a run with a decoder, compiled at its first call if asked.

    On a CPU that is the whole decoder, elsewhere block by block.
    """
    train = settings.train
    if compiled:
        keep_compiled_code()
    whole = compiled and precision.device.type == "cpu"
    forward = torch.compile(decoder, mode=train.compile_mode) if whole else decoder
    method = Pretraining() if method is None else method
    models, objective = method.models(forward), method.objective(settings)
    stepper = Stepper(
        decoder, models, objective, optimizer, train.clip.build(), precision, train, trainable,
        together,
    )  # fmt: skip
    if compiled and not whole:
        stepper.compiled_blocks = CompiledBlocks(decoder, train.compile_mode)
    return stepper


def _compiled(
    settings: RunSettings,
    example: Callable[[], TokenBatch],
    eager: Stepper,
    kept: ChoicesState | None,
    tell: Callable[[str], None],
    made: Callable[..., Stepper],
) -> tuple[Stepper, bool]:
    """Return the stepper to train with, compiled or not, and which it is."""
    device = eager.precision.device
    compiled = made(eager.precision, compiled=True)
    if settings.train.compile is True:
        return compiled, True
    if kept is not None and kept.device == device.type:
        missing = missing_compiler(device) if kept.compile else None
        if missing:
            tell(f"The run began compiled and goes on as it is, for here {missing}.")
        compile = kept.compile and not missing
        return (compiled, True) if compile else (eager, False)
    piece = next(example().split(settings.train.gradient_accumulation))
    with set_aside():
        choice = choose_compile(
            settings, device, lambda: eager.rehearse(piece), lambda: compiled.rehearse(piece)
        )
    tell(f"The decoder is {choice.reason}.")
    return (compiled, True) if choice.compile else (eager, False)
