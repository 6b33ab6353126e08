"""Everything that a run needs while it trains, built from its settings in one place."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from coterie.data import BatchLoader, Store, store_for
from coterie.data.augment import augmentations
from coterie.data.report import were
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import RunDirectory, cache_root
from coterie.generate import Engine
from coterie.generate.threads import shared_cores
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer
from coterie.train.memory import require_memory, role_parameters
from coterie.train.objective import Models
from coterie.train.precision import Precision, resolve_device, resolve_precision
from coterie.train.progress import Progress
from coterie.train.randomness import seed_all
from coterie.train.settings import RunSettings
from coterie.train.step import Stepper


@dataclass
class Session:
    """A run in training; all its checkpoints carry its `identity`, which a resumed one keeps."""

    settings: RunSettings
    run: RunDirectory
    store: Store
    decoder: Decoder
    stepper: Stepper
    precision: Precision
    progress: Progress = field(default_factory=Progress)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run's store."""
        return self.store.tokenizer

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step reads."""
        return self.settings.train.batch_size * self.settings.model.context

    def loader(self) -> BatchLoader:
        """Return the batches of this run; batch i is what step i trains on."""
        return BatchLoader(
            self.store.tokens("train"),
            context=self.settings.model.context,
            batch_size=self.settings.train.batch_size,
            seed=self.settings.seed,
            device=self.precision.device,
            packing=self.settings.data.packing,
            mix=self.settings.data.mix,
            augment=augmentations(self.settings.data.augment, self.tokenizer, self.settings.seed),
        )

    def engine(self) -> Engine:
        """Return an engine that writes with the model as it is at the time."""
        return Engine(self.decoder, self.tokenizer)


def open_session(
    settings: RunSettings, run: RunDirectory, tell: Callable[[str], None] = lambda message: None
) -> Session:
    """Prepare the data if need be and build model and optimizer with freshly seeded weights.

    Args:
        settings: the run's.
        run: its directory.
        tell: told in a sentence what takes long.

    Raises:
        UserError: settings, data or device cannot be used.
    """
    train = settings.train
    precision = resolve_precision(train.precision, resolve_device(train.device))
    store = store_for(settings.data, settings.tokenizer, cache_root(), _tell_stages(tell), tell)
    store.check_content()
    _tell_reading(store, tell)
    settings = fill_vocabulary_size(settings, store.tokenizer.vocab_size)
    settings = fill_tag_ids(settings, store.tokenizer)
    require_memory(settings, precision)
    seed_all(settings.seed)
    decoder = settings.model.build().to(precision.device).train()
    decoder.activation_checkpointing = train.activation_checkpointing
    if train.compile:
        shared_cores().hold()  # what is compiled is compiled again for each number of threads
    forward = torch.compile(decoder) if train.compile else decoder
    optimizer = train.optimizer.build(role_parameters(decoder))
    objective = train.objective.build(settings.model)
    stepper = Stepper(
        decoder, Models(forward), objective, optimizer, train.clip.build(), precision, train
    )
    return Session(settings, run, store, decoder, stepper, precision)


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
