"""What a run trains on, from which weights, and with which objective: its method.

Everything else of training is the same for every method: run directory, events, resume, cutting
batches where memory is short, precision, clipping, averages, early stopping. `Pretraining` is the
one of `coterie train`; `coterie.align` has others, which begin with the weights of another run.

To add one, subclass `Method`. `prepare` returns the settings and the data; `begin` puts weights
into the drawn decoder; `trainable` says what moves (adapters, say); `objective` and `models` say
what a step minimises; `loader` gives the batches. A loader may compute a batch with the decoder as
it is at that step, for `next()` is called in the loop's own thread: rollouts of the current policy
are batches too. What a batch holds besides tokens are fields of a subclass of `TokenBatch`; what
cannot be split among micro-batches stands in one row. Terms without gradient are metrics, and
whatever is larger is published as an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.data.streamed import StreamedRows
from coterie.model import Decoder
from coterie.model.output import Output
from coterie.parallel.together import Together
from coterie.tokenizer.interface import Tokenizer
from coterie.train.events import Evaluated
from coterie.train.monitor.parts import PartWatch
from coterie.train.objective import Models, Objective
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings

if TYPE_CHECKING:
    from coterie.train.session import Session

Tell = Callable[[str], None]


class RunData(Protocol):
    """What a run reads, as far as every method needs it: a store, or rows in memory."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What made its tokens."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the batches; a resumed run must find the same."""
        ...

    @property
    def sources(self) -> Mapping[str, Any]:
        """The sources that are mixed, by name; none or one: nothing is told of each."""
        ...

    def check_content(self) -> None:
        """Raise a `StoreError` if what is still to be read was changed."""
        ...


class Batches(Protocol):
    """The batches of a run: a context manager, whose leaving ends what it began."""

    def iterate(self, start: int = 0, ready: int = 1) -> Iterator[TokenBatch]:
        """Yield the batches from step `start` on, without end; `ready` may be prepared ahead."""
        ...

    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Trainable:
    """What the optimizer moves: all parameters of the decoder that have gradients.

    Attributes:
        parameters: the tensors, with the names under which their moments are kept.
        recordable: whether a step's gradients may be recorded as a CUDA graph.
    """

    recordable = True

    def __init__(self, decoder: Decoder) -> None:
        self.parameters = role_parameters(decoder)

    def take_gradients(self) -> None:
        """Give the parameters the gradients of the decoder's, where they are not the same."""

    def gradient(self, parameter: Tensor) -> Tensor | None:
        """Return the gradient of one of the parameters, or of this process's part of it."""
        return parameter.grad

    def scale(self, factor: float, norm: float) -> None:
        """Multiply the gradients, whose norm together is given, in one pass if at all."""
        if factor != 1.0:
            tensors = (each.tensor.grad for each in self.parameters)
            gradients = [each for each in tensors if each is not None]
            torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]

    def watch(self, together: Together | None) -> PartWatch:
        """Return what measures gradients and updates part by part."""
        return PartWatch(self.parameters)

    def norms(self) -> list[tuple[Tensor, Tensor]]:
        """Return the norm of what this process holds of each gradient, and its parameter."""
        return []

    def forget(self) -> None:
        """Drop gradients that were not taken."""

    def moved(self) -> None:
        """Let the decoder follow, after the optimizer's step."""

    def kept(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps beside the decoder's own tensors and the moments."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Take back what `kept` returned; return the names that were used."""
        return set()


class Method:
    """How a run differs from others. Holds no state of a training but what `begin` read."""

    halted: str | None = None
    """Why the run is to end after the step that is being taken, if it is."""

    def prepare(self, settings: RunSettings, tell: Tell) -> tuple[RunSettings, RunData]:
        """Return the settings with what the data decide, and the data.

        Raises:
            UserError: settings or data cannot be used.
        """
        raise NotImplementedError

    def require(self, settings: RunSettings, data: RunData, device: torch.device) -> None:
        """Make sure that the data suffice for the run; raise a `UserError` otherwise."""

    def begin(self, decoder: Decoder, data: RunData, tell: Tell) -> None:
        """Give the freshly drawn decoder, on its device, the weights of step 0."""

    def trainable(self, decoder: Decoder) -> Trainable:
        """Return what moves of a decoder that has the weights of step 0, or has no memory."""
        return Trainable(decoder)

    def objective(self, settings: RunSettings) -> Objective:
        """Return what a step minimises."""
        return settings.train.objective.build(settings.model)

    def models(self, decoder: Callable[..., Output]) -> Models:
        """Return what the objective runs, the decoder or a compiled form of it among them."""
        return Models(decoder)

    def memory(self, settings: RunSettings, parts: dict[str, int]) -> dict[str, int]:
        """Return the bytes of a run by part, given those of training all weights of its model."""
        return parts

    def example(self, settings: RunSettings, data: RunData, device: torch.device) -> TokenBatch:
        """Return a batch of a step, or one of its shape, for whoever measures."""
        raise NotImplementedError

    def padding(self, batch: TokenBatch, places: int) -> int:
        """Return how many of a step's places held no token; pretraining fills them all."""
        return 0

    def loader(self, session: Session) -> Batches:
        """Return the batches of the run: those of a step follow from it, the seed and weights."""
        raise NotImplementedError

    def describe(self, session: Session, loader: Batches, tell: Tell) -> None:
        """Say what is read, before the first step."""

    def stream(self, settings: RunSettings, data: RunData, tell: Tell) -> StreamedRows | None:
        """Return the rows of a run that reads a stream."""
        return None

    def holds_out(self, data: RunData) -> bool:
        """Whether there is anything to evaluate on."""
        return False

    def evaluate(self, session: Session) -> list[Evaluated]:
        """Return the evaluations of the model as it is now."""
        return []
