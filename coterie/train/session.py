"""Everything that a run needs while it trains, built from its settings in one place."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from coterie.checkpoint.state import ChoicesState
from coterie.data import BatchLoader, Store, store_for
from coterie.data.augment import augmentations
from coterie.data.cache import streamed_texts
from coterie.data.curriculum import Stages
from coterie.data.merged import AnyStore, MergedStore
from coterie.data.mix import Proportional, Weighted
from coterie.data.mix.ratio import Ratio
from coterie.data.report import were
from coterie.data.streamed import StreamedRows
from coterie.foundation.allocator import keep_freed_memory
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import RunDirectory, cache_root
from coterie.generate import Engine
from coterie.generate.threads import shared_cores
from coterie.model import Decoder
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
from coterie.train.memory import require_memory
from coterie.train.objective import Models
from coterie.train.optimizer import Optimizer
from coterie.train.precision import Precision, resolve_device
from coterie.train.pressure import MemoryPressure, reader
from coterie.train.progress import Progress
from coterie.train.randomness import seed_all, set_aside
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings
from coterie.train.step import Stepper


@dataclass
class Session:
    """A run in training; all its checkpoints carry its `identity`, which a resumed one keeps."""

    settings: RunSettings
    run: RunDirectory
    store: AnyStore
    decoder: Decoder
    stepper: Stepper
    precision: Precision
    compiled: bool = False
    progress: Progress = field(default_factory=Progress)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    stream: StreamedRows | None = None

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

    def loader(self) -> BatchLoader:
        """Return the batches of this run; batch i is what step i trains on."""
        return loader_of(self.settings, self.store, self.precision.device, self.stream)

    @property
    def first_row(self) -> int:
        """The first row of the next step, through all steps so far, of a run without stages."""
        return self.progress.step * self.settings.train.batch_size

    def engine(self) -> Engine:
        """Return an engine that writes with the model as it is at the time."""
        return Engine(self.decoder, self.tokenizer)


def open_session(
    settings: RunSettings,
    run: RunDirectory,
    tell: Callable[[str], None] = lambda message: None,
    kept: ChoicesState | None = None,
) -> Session:
    """Prepare the data if need be and build model and optimizer with freshly seeded weights.

    Args:
        settings: the run's.
        run: its directory.
        tell: told in a sentence what takes long.
        kept: what the run chose by measuring when it began, if it is resumed.

    Raises:
        UserError: settings, data or device cannot be used.
    """
    device = resolve_device(settings.train.device)
    if settings.train.compile is True:
        require_compiler(device)
    require_one_recording(settings.train, device)
    settings, store = prepare(settings, tell)
    require_memory(settings, choose_precision(settings, device, kept))
    loader_of(settings, store, device).require(settings.train.steps)
    if device.type == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = settings.train.cudnn_benchmark
    seed_all(settings.seed)
    decoder = settings.model.build().to(device).train()
    decoder.activation_checkpointing = settings.train.activation_checkpointing
    if decoder.ngram is not None:
        tell("Counting the n-grams of the training text.")
        decoder.ngram.count(_pieces(store))
    optimizer = settings.train.optimizer.build(role_parameters(decoder))
    read = functools.cache(
        lambda: short_batch(settings, loader_of(settings, store, device).batch(0))
    )

    def rehearse(precision: Precision) -> None:
        make_stepper(settings, decoder, optimizer, precision).rehearse(read())

    with set_aside():
        precision = choose_precision(settings, device, kept, rehearse)
    stepper, compiled = make_stepper(settings, decoder, optimizer, precision), False
    if settings.train.compile:
        shared_cores().hold()  # what is compiled is compiled again for each number of threads
        stepper, compiled = _compiled(settings, store, stepper, kept, tell)
    stepper.tell = tell
    if kept is not None and kept.device == device.type and kept.pieces is not None:
        stepper.pieces = kept.pieces
    if settings.train.dynamic_batch:
        rows = settings.train.batch_size
        stepper.pressure = MemoryPressure(reader(device), stepper.pieces, rows)
    if settings.train.ema is not None:
        stepper.average = WeightAverage(role_parameters(decoder), settings.train.ema)
    if device.type == "cuda" and settings.train.cuda_graph:
        stepper.record()
    stream = _stream_of(settings, store, tell)
    return Session(settings, run, store, decoder, stepper, precision, compiled, stream=stream)


def _pieces(store: AnyStore, size: int = 1 << 24) -> Iterator[torch.Tensor]:
    """Yield the training text's tokens, of which not more than one piece is in memory."""
    for source in store.sources.values():
        tokens = source.tokens("train")
        for start in range(0, len(tokens), size):
            yield torch.from_numpy(tokens[start : start + size].astype(np.int64))


def prepare(settings: RunSettings, tell: Callable[[str], None]) -> tuple[RunSettings, AnyStore]:
    """Return a run's settings with what its tokenizer decides, and its data, prepared if need be.

    Raises:
        UserError: settings or data cannot be used.
    """
    store = store_for(settings.data, settings.tokenizer, cache_root(), _tell_stages(tell), tell)
    store.check_content()
    for source in store.sources.values():
        _tell_reading(source, tell)
    _tell_mixing(settings, store, tell)
    settings = fill_vocabulary_size(settings, store.tokenizer.vocab_size)
    settings = fill_epochs(fill_tag_ids(settings, store.tokenizer), store)
    if settings.train.epoch_steps is not None:
        tell(
            f"One epoch, as many tokens as the training text has, is "
            f"{settings.train.epoch_steps:,} steps."
        )
    return settings, store


def make_stepper(
    settings: RunSettings,
    decoder: Decoder,
    optimizer: Optimizer,
    precision: Precision,
    *,
    compiled: bool = False,
) -> Stepper:
    """Return what takes the steps of a run with a decoder, compiled at its first call if asked.

    On a CPU that is the whole decoder, elsewhere block by block.
    """
    train = settings.train
    if compiled:
        keep_compiled_code()
    whole = compiled and precision.device.type == "cpu"
    forward = torch.compile(decoder, mode=train.compile_mode) if whole else decoder
    objective = train.objective.build(settings.model)
    stepper = Stepper(
        decoder, Models(forward), objective, optimizer, train.clip.build(), precision, train
    )
    if compiled and not whole:
        stepper.compiled_blocks = CompiledBlocks(decoder, train.compile_mode)
    return stepper


def _compiled(
    settings: RunSettings,
    store: AnyStore,
    eager: Stepper,
    kept: ChoicesState | None,
    tell: Callable[[str], None],
) -> tuple[Stepper, bool]:
    """Return the stepper to train with, compiled or not, and which it is."""
    device = eager.precision.device
    compiled = make_stepper(
        settings, eager.decoder, eager.optimizer, eager.precision, compiled=True
    )
    if settings.train.compile is True:
        return compiled, True
    if kept is not None and kept.device == device.type:
        missing = missing_compiler(device) if kept.compile else None
        if missing:
            tell(f"The run began compiled and goes on as it is, for here {missing}.")
        compile = kept.compile and not missing
        return (compiled, True) if compile else (eager, False)
    batch = loader_of(settings, store, device).batch(0)
    piece = next(batch.split(settings.train.gradient_accumulation))
    with set_aside():
        choice = choose_compile(
            settings, device, lambda: eager.rehearse(piece), lambda: compiled.rehearse(piece)
        )
    tell(f"The decoder is {choice.reason}.")
    return (compiled, True) if choice.compile else (eager, False)


def loader_of(
    settings: RunSettings,
    store: AnyStore,
    device: torch.device,
    stream: StreamedRows | None = None,
) -> BatchLoader:
    """Return the batches of a run; batch i is what step i trains on.

    Where that is a stream, those without it are batches of its head, which have the same shapes.
    """
    return BatchLoader(
        stream or {name: source.tokens("train") for name, source in store.sources.items()},
        context=settings.model.context,
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        device=device,
        packing=settings.data.packing,
        mix=settings.data.mix or store.mix,
        augment=augmentations(settings.data.augment, store.tokenizer, settings.seed),
        stages=settings.stages,
    )


def _stream_of(
    settings: RunSettings, store: AnyStore, tell: Callable[[str], None]
) -> StreamedRows | None:
    """Return the rows of a run that reads a stream.

    Raises:
        DataError: an input is not there any more.
    """
    data = settings.data
    if data.stream is None:
        return None
    shape = (settings.model.context, data.stream.block)
    texts = streamed_texts(data)
    stream = StreamedRows(texts, store.tokenizer, data.packing, shape, settings.seed)
    stream.tell = tell
    return stream


def _tell_mixing(settings: RunSettings, store: AnyStore, tell: Callable[[str], None]) -> None:
    """Say in which ratio several sources are mixed."""
    mix = settings.data.mix or store.mix or Proportional()
    if isinstance(store, MergedStore) and isinstance(mix, Ratio):
        shares = zip(store.sources, mix.ratio(store.to_mix()), strict=True)
        ratio = ", ".join(f"{name} {share:.2%}" for name, share in shares)
        total = sum(mix.weights_of(store.to_mix()))
        odd = isinstance(mix, Weighted) and abs(total - 1) > 1e-9
        added = f"; the weights add up to {total:g} and stand for these shares" if odd else ""
        tell(f"Rows are mixed: {ratio}{added}.")


def _tell_reading(store: Store, tell: Callable[[str], None]) -> None:
    """Say what was left out of the text, and what was chosen in reading it unasked."""
    manifest = store.manifest
    for note in manifest.notes:
        tell(f"{note}.")
    if manifest.skipped:
        first = f"; the first: {manifest.problems[0]}" if manifest.problems else ""
        left_out = f"{were(manifest.skipped)} left out of the text{first}"
        tell(f"{left_out}. All: coterie data inspect {store.path}")


def _tell_stages(tell: Callable[[str], None]) -> Callable[[str, int, int | None], None]:
    """Return a progress function that says each stage of preparing the data once."""
    told: set[str] = set()

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in told:
            told.add(stage)
            size = "" if total is None else f" {total:,} characters"
            tell(f"Preparing the data, for this first time: {stage}{size}.")

    return progress


def fill_vocabulary_size(settings: RunSettings, tokens: int) -> RunSettings:
    """Return the settings with the model's vocabulary size set, if they leave it out.

    Args:
        settings: the run.
        tokens: how many its tokenizer knows.

    Raises:
        SettingsError: the size given is smaller than that.
    """
    size = settings.model.vocab_size
    if size is None:
        model = settings.model.model_copy(update={"vocab_size": tokens})
        return settings.model_copy(update={"model": model})
    if size < tokens:
        raise SettingsError(
            f"model.vocab_size={size:,} is smaller than the tokenizer's {tokens:,}.",
            hint="Leave model.vocab_size out: it is taken from the tokenizer.",
        )
    return settings


def fill_epochs(settings: RunSettings, store: AnyStore) -> RunSettings:
    """Return the settings with the steps of an epoch, if anything in them is told in epochs.

    Args:
        settings: the run, what its tokenizer decides known.
        store: its data; what was counted on other data counts no more.
    """
    if not settings.train.counts_epochs:
        return settings
    steps = loader_of(settings, store, torch.device("cpu")).epoch_steps
    return settings.model_copy(update={"train": settings.train.with_epoch_of(steps)})


def fill_tag_ids(settings: RunSettings, tokenizer: Tokenizer) -> RunSettings:
    """Return the settings with the tokens of the tags that the model's embeddings look for.

    A tag may be anything that the tokenizer makes one token of; usually it is a special token.

    Raises:
        SettingsError: the tokenizer has no single token for a tag.
    """
    additive = tuple(
        each.with_ids(
            {
                tag: tokenizer.single_token(tag, f"model.additive.{number}.{setting}")
                for setting, tag in each.tags().items()
            }
        )
        for number, each in enumerate(settings.model.additive)
    )
    model = settings.model.model_copy(update={"additive": additive})
    return settings.model_copy(update={"model": model})
