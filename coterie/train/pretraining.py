"""Pretraining: the method of a run that reads text from a store and begins with drawn weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from coterie.batch import TokenBatch
from coterie.data import BatchLoader, Store, store_for
from coterie.data.augment import augmentations
from coterie.data.cache import streamed_texts
from coterie.data.merged import AnyStore, MergedStore, held_out
from coterie.data.mix import Proportional, Weighted
from coterie.data.mix.ratio import Ratio
from coterie.data.report import were
from coterie.data.streamed import StreamedRows
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import cache_root
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer
from coterie.train.evaluation import evaluated
from coterie.train.events import DataDescribed, Evaluated
from coterie.train.method import Batches, Method, RunData, Tell
from coterie.train.settings import RunSettings

if TYPE_CHECKING:
    from coterie.train.session import Session


class Pretraining(Method):
    """Reads the text of a store and begins with weights drawn from the run's seed."""

    def prepare(self, settings: RunSettings, tell: Tell) -> tuple[RunSettings, RunData]:
        """Return the settings with what the tokenizer decides, and the store."""
        return prepare(settings, tell)

    def require(self, settings: RunSettings, data: RunData, device: torch.device) -> None:
        """Make sure that there are as many batches as the run has steps."""
        loader_of(settings, _store(data), device).require(settings.train.steps)

    def begin(self, decoder: Decoder, data: RunData, tell: Tell) -> None:
        """Count the n-grams of the text, if the model predicts with them."""
        if decoder.ngram is not None:
            tell("Counting the n-grams of the training text.")
            decoder.ngram.count(_pieces(_store(data)))

    def example(self, settings: RunSettings, data: RunData, device: torch.device) -> TokenBatch:
        """Return the run's first batch; of a stream, one of its head's."""
        return loader_of(settings, _store(data), device).batch(0)

    def loader(self, session: Session) -> Batches:
        """Return the batches of the run; batch i is what step i trains on."""
        device, stream = session.precision.device, session.stream
        share = (0, 1) if session.together is None else session.together.share
        return loader_of(session.settings, _store(session.store), device, stream, share)

    def describe(self, session: Session, loader: Batches, tell: Tell) -> None:
        """Say what the run reads."""
        assert isinstance(loader, BatchLoader)
        steps = session.settings.train.steps
        tell(f"The run reads {loader.reading(steps).told}.")
        session.publish(DataDescribed(**vars(loader.mixture(steps))))

    def stream(self, settings: RunSettings, data: RunData, tell: Tell) -> StreamedRows | None:
        """Return the rows of a run that reads a stream."""
        return _stream_of(settings, _store(data), tell)

    def holds_out(self, data: RunData) -> bool:
        """Whether the store has a validation split."""
        return bool(held_out(_store(data)))

    def evaluate(self, session: Session) -> list[Evaluated]:
        """Return an evaluation of each source that holds something out."""
        return evaluated(
            session.settings,
            _store(session.store),
            session.decoder,
            session.precision,
            session.progress.step,
            session.together,
        )


def _store(data: RunData) -> AnyStore:
    assert isinstance(data, Store | MergedStore)
    return data


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


def _pieces(store: AnyStore, size: int = 1 << 24) -> Iterator[torch.Tensor]:
    """Yield the training text's tokens, of which not more than one piece is in memory."""
    for source in store.sources.values():
        tokens = source.tokens("train")
        for start in range(0, len(tokens), size):
            yield torch.from_numpy(tokens[start : start + size].astype(np.int64))


def loader_of(
    settings: RunSettings,
    store: AnyStore,
    device: torch.device,
    stream: StreamedRows | None = None,
    share: tuple[int, int] = (0, 1),
) -> BatchLoader:
    """Return the batches of a run; batch i is what step i trains on.

    Where that is a stream, those without it are batches of its head, which have the same shapes. A
    share (rank, world) has those rows of each micro-batch that are a process's own.
    """
    return BatchLoader(
        stream or {name: source.tokens("train") for name, source in store.sources.items()},
        context=settings.model.context,
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        rank=share[0],
        world=share[1],
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
