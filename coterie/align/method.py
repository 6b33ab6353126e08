"""A method that begins with the weights and the tokenizer of a run, and reads rows in memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from coterie.align.lora import FRESH, Adapters
from coterie.align.packing import PackedRows, Unit
from coterie.align.settings import Alignment
from coterie.batch import TokenBatch
from coterie.checkpoint import LoadedModel, load_model, load_tensors
from coterie.checkpoint.layout import MODEL, stored
from coterie.checkpoint.manifest import tensors_digest
from coterie.checkpoint.tensor_file import read_tensors
from coterie.checkpoint.tensors import model_tensors
from coterie.evaluate import validate
from coterie.foundation.errors import CheckpointError, DataError, SettingsError
from coterie.foundation.files import sha256_bytes
from coterie.foundation.runs import RunDirectory
from coterie.model import Decoder
from coterie.quantise import weights_of
from coterie.tokenizer.chat import ChatTemplate
from coterie.tokenizer.interface import Tokenizer
from coterie.train.events import Evaluated
from coterie.train.memory import shadow_decoder
from coterie.train.method import Batches, Method, RunData, Tell, Trainable
from coterie.train.settings import RunSettings

if TYPE_CHECKING:
    from coterie.train.session import Session

T = TypeVar("T")
DEFAULT_TEMPLATE = "play"


def weights_digest(checkpoint: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights, as its manifest has it."""
    return tensors_digest(checkpoint, MODEL)


@dataclass(frozen=True)
class AlignData:
    """The rows of a run, in memory.

    Attributes:
        tokenizer: of the run that this one began from.
        train, valid: rows to learn from, and those held out, if any.
        about: what else decides the batches, for the fingerprint.
        sources: nothing is mixed.
    """

    tokenizer: Tokenizer
    train: PackedRows
    valid: PackedRows | None
    about: str = ""
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the batches."""
        parts = (self.tokenizer.fingerprint, self.about, self.train.digest,
                 "" if self.valid is None else self.valid.digest)  # fmt: skip
        return sha256_bytes("\n".join(parts).encode())

    def check_content(self) -> None:
        """Nothing is read any more."""


class RowBatches(contextlib.AbstractContextManager["RowBatches"]):
    """Batches of packed rows."""

    def __init__(self, read: Callable[[int], TokenBatch]) -> None:
        self._read = read

    def iterate(self, start: int = 0, ready: int = 1) -> Iterator[TokenBatch]:
        """Yield the batches from a step on, without end."""
        while True:
            yield self._read(start)
            start += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class AlignMethod(Method):
    """What all alignment methods share; those that read rows say how in `units`.

    Args:
        alignment: the settings.
        run: where what is computed once is kept; None: nowhere.
    """

    width = 1
    """Contexts that a row is long, as many as a unit has texts."""

    def __init__(self, alignment: Alignment, run: RunDirectory | None) -> None:
        self.alignment, self.run = alignment, run

    @functools.cached_property
    def base(self) -> LoadedModel:
        """The model that the run begins with.

        Raises:
            CheckpointError: it is not there, or not the one it was, or its weights are quantised.
        """
        path = Path(self.alignment.base)
        if not path.is_dir():
            raise CheckpointError(
                f"The checkpoint {path}, which this run began from, is not there.",
                hint="Restore it; or begin anew from another one.",
            )
        loaded = load_model(path)
        wanted = self.alignment.base_sha256
        if wanted and weights_digest(loaded.path) != wanted:
            raise CheckpointError(
                f"The weights of {path} are not those that this run began from.",
                hint="Restore them; or begin anew.",
            )
        if kind := weights_of(loaded.decoder):
            raise CheckpointError(
                f"The weights of {path} are {kind} and cannot be trained.",
                hint="Begin with the run that they were made from.",
            )
        return loaded

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self.base.tokenizer

    @functools.cached_property
    def template(self) -> ChatTemplate:
        """How conversations are written."""
        own = self.alignment.template or self.tokenizer.chat_template
        return ChatTemplate(own or DEFAULT_TEMPLATE, self.tokenizer)

    def reference(self, device: torch.device | str = "cpu") -> Decoder:
        """Return the model as it was, in evaluation mode and without gradients."""
        return self.base.decoder.to(device).requires_grad_(False)

    def units(self, tell: Tell) -> list[Unit]:
        """Return the rows of the data as texts, in order."""
        raise NotImplementedError

    def prompts(self) -> Sequence[str]:
        """Return a few prompts to sample from while training."""
        return ()

    def packed(self, units: Sequence[Unit], settings: RunSettings) -> PackedRows:
        """Return texts packed into rows."""
        return PackedRows(units, self.width * settings.row_length, settings.seed)

    def prepare(self, settings: RunSettings, tell: Tell) -> tuple[RunSettings, RunData]:
        """Read the rows, hold some out, pack them; fill in what follows from them."""
        context, source = settings.row_length, self.template.source  # refused before any row
        if context > settings.model.context:
            raise SettingsError(
                f"align.max_length={context:,} is more than the {settings.model.context:,} tokens "
                "that the model reads."
            )
        every = self.units(tell)
        units = [unit for unit in every if max(len(t.tokens) for t in unit) <= context]
        if len(units) < len(every):
            tell(
                f"{len(every) - len(units):,} of {len(every):,} rows are longer than "
                f"{context:,} tokens and are left out."
            )
        held, kept = _held_out(units, self.alignment.valid_fraction, settings.seed)
        if not kept:
            raise DataError(
                f"No row of {self.alignment.data} is left to train on.",
                hint=f"A row holds {context:,} tokens; give shorter texts.",
            )
        valid = self.packed(held, settings) if held else None
        about = f"{self.alignment.base_sha256} {source}"
        data = AlignData(self.tokenizer, self.packed(kept, settings), valid, about)
        return self._filled(settings, data), data

    def _filled(self, settings: RunSettings, data: AlignData) -> RunSettings:
        """Return the settings with the steps of an epoch, and prompts to sample from."""
        train = settings.train
        if train.batch_size % self.width:
            raise DataError(
                f"train.batch_size={train.batch_size} must be even: a row of pairs is two contexts "
                "long and counts twice."
            )
        if train.counts_epochs:
            train = train.with_epoch_of(-(-data.train.count // self._rows(settings)))
        if "prompts" not in train.model_fields_set and (prompts := tuple(self.prompts())):
            train = train.model_copy(update={"prompts": prompts})
        return settings.model_copy(update={"train": train})

    def _rows(self, settings: RunSettings) -> int:
        return settings.train.batch_size // self.width

    def begin(self, decoder: Decoder, data: RunData, tell: Tell) -> None:
        """Put the base's weights into the decoder."""
        path = self.base.path
        own, given = model_tensors(decoder), read_tensors(stored(path, MODEL))
        fresh = {n: t for n, t in own.items() if n.startswith(FRESH) and n not in given}
        load_tensors(decoder, {**given, **fresh}, path)

    def trainable(self, decoder: Decoder) -> Trainable:
        """Return the adapters, if any are asked for."""
        lora = self.alignment.lora
        return Trainable(decoder) if lora is None else Adapters(decoder, lora)

    def memory(self, settings: RunSettings, parts: dict[str, int]) -> dict[str, int]:
        """Return the bytes by part: with adapters W₀ is held too, but few moments."""
        if self.alignment.lora is None:
            return parts
        hollow = shadow_decoder(settings.model)
        adapters = Adapters(hollow, self.alignment.lora)
        wanted = settings.train.optimizer.state_bytes(adapters.parameters)
        size = sum(each.tensor.numel() * 4 for each in adapters.parameters)
        held = sum(p.numel() * 4 for p in hollow.parameters() if p.requires_grad)
        return {**parts, "optimizer": wanted, "adapters": 2 * size, "original weights": held}

    def example(self, settings: RunSettings, data: RunData, device: torch.device) -> TokenBatch:
        """Return the batch of the first step."""
        assert isinstance(data, AlignData)
        return data.train.batch(0, self._rows(settings)).to(device)

    def padding(self, batch: TokenBatch, places: int) -> int:
        """Return the places beyond the batch's texts."""
        if batch.documents is not None:
            return places - int((batch.documents >= 0).sum())
        length = batch.tokens.shape[1]
        last = length - batch.valid.flip(1).int().argmax(1)
        return places - int(torch.where(batch.valid.any(1), last, 0).sum())

    def loader(self, session: Session) -> Batches:
        """Return the batches of the run, a pure function of seed and step."""
        data, rows, device = session.store, self._rows(session.settings), session.precision.device
        assert isinstance(data, AlignData)
        return RowBatches(lambda step: data.train.batch(step, rows).to(device))

    def describe(self, session: Session, loader: Batches, tell: Tell) -> None:
        """Say what is read, and how much of it moves."""
        data = session.store
        assert isinstance(data, AlignData)
        rows = data.train
        tell(
            f"The run reads {rows.texts:,} texts, packed into {rows.count:,} rows of "
            f"{rows.length:,} tokens; {rows.targets:,} tokens are learnt in each epoch, "
            f"{rows.padding:.1%} of the places are padding."
        )
        moving = sum(each.tensor.numel() for each in session.stepper.trainable.parameters)
        whole = sum(each.numel() for each in session.decoder.parameters())
        if self.alignment.lora is not None:
            tell(f"Adapters of {moving:,} parameters move, {moving / whole:.2%} of the model's.")

    def holds_out(self, data: RunData) -> bool:
        """Whether rows are held out."""
        return isinstance(data, AlignData) and data.valid is not None

    def evaluate(self, session: Session) -> list[Evaluated]:
        """Return the loss over what is held out, each token that is learnt alike."""
        data = session.store
        assert isinstance(data, AlignData)
        if data.valid is None:
            return []
        size = session.settings.train.evaluation_batch_size(data.valid.length)
        found = validate(
            session.decoder, _batches(data.valid, size), autocast=session.precision.autocast
        )
        return [
            Evaluated(
                step=session.progress.step,
                split="valid",
                loss=found.loss,
                tokens=found.tokens,
                seconds=found.seconds,
            )
        ]


def _batches(rows: PackedRows, size: int) -> Iterator[TokenBatch]:
    """Yield all rows in order."""
    for first in range(0, rows.count, size):
        yield rows.in_order(np.arange(first, min(first + size, rows.count)))


def _held_out(units: Sequence[T], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Return a share of the units, drawn by the seed, and the others, each in their order."""
    drawn = np.random.default_rng(seed).permutation(len(units))
    held = set(drawn[: round(fraction * len(units))].tolist())
    return (
        [unit for number, unit in enumerate(units) if number in held],
        [unit for number, unit in enumerate(units) if number not in held],
    )
