"""One optimizer step: forward and backward in pieces, check, clip, move, balance.

Gradients that are not finite never reach the parameters: with float16 the loss scale is lowered and
the step skipped; otherwise the run stops and names the parameter. What a step learns for later ones
(loss scale, clip history, balance) it learns last, so that nothing is divided by the next step's
scale or held to a limit that already knows this step's norm.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.foundation.allocator import return_freed_memory
from coterie.foundation.errors import TrainingError
from coterie.generate.passes.recorded import Record, cuda_graph
from coterie.model import Decoder, Output, RouterStats, routed_layers, update_balance
from coterie.parallel.health import CrowdedError
from coterie.parallel.pipeline import Work
from coterie.parallel.together import Together
from coterie.train.average import WeightAverage
from coterie.train.clip import Clipper
from coterie.train.compiled_blocks import CompiledBlocks
from coterie.train.events import PartMeasured
from coterie.train.method import Trainable
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import Models, Objective, Terms
from coterie.train.objective.routers import router_terms
from coterie.train.offload import activations_away
from coterie.train.optimizer import Optimizer
from coterie.train.precision import LossScale, Precision
from coterie.train.pressure import MemoryPressure
from coterie.train.randomness import set_torch_states, torch_states
from coterie.train.recorded import RecordedGradients
from coterie.train.settings import TrainSettings


@dataclass(frozen=True)
class StepResult:
    """What a step did. Tensors stay on the device until somebody asks for their value.

    Attributes:
        metrics: loss, other terms and loads over the whole batch.
        loss: of the metrics, read together with the norm.
        gradient_norm: before clipping.
        learning_rate: of the optimizer's main group.
        moved: false where a float16 overflow made the step be skipped.
        parts: gradients and updates part by part, at steps where that is due.
        pieces: micro-batches that the step was computed in; rows: of each of them.
        pressure: share of the memory in use afterwards, where the cut follows it.
    """

    metrics: StepMetrics
    loss: float
    gradient_norm: float
    learning_rate: float
    moved: bool
    parts: tuple[PartMeasured, ...] | None = None
    pieces: int = 1
    rows: int = 0
    pressure: float | None = None


class NoRoomError(TrainingError):
    """A batch does not fit into memory, however it may be cut."""


class Stepper:
    """Takes optimizer steps with one decoder.

    Args:
        decoder: the model whose parameters move.
        models: what the objective runs: the decoder, or a compiled form of it, and others by name.
        objective: what is minimised.
        optimizer: moves the parameters.
        clipper: bounds the gradient's norm.
        precision: the type that products run in.
        settings: how to train.
        trainable: what the optimizer moves; None: the decoder's own parameters.
        together: the processes that take each step at once; None: this one alone.
    """

    def __init__(
        self,
        decoder: Decoder,
        models: Models,
        objective: Objective,
        optimizer: Optimizer,
        clipper: Clipper,
        precision: Precision,
        settings: TrainSettings,
        trainable: Trainable | None = None,
        together: Together | None = None,
    ) -> None:
        self.decoder = decoder
        self.together = together
        self.optimizer = optimizer
        self.clipper = clipper
        self.loss_scale: LossScale | None = precision.loss_scale()
        self._models = models
        self._objective = objective
        self.precision = precision
        self.compiled_blocks: CompiledBlocks | None = None
        self.average: WeightAverage | None = None
        self.pressure: MemoryPressure | None = None
        self.pieces = settings.gradient_accumulation  # more where memory did not suffice
        self.tell: Callable[[str], None] = lambda sentence: None
        self.lowered = 1.0  # of the learning rate, for the validation loss stands still
        self.recorded: RecordedGradients | None = None
        self.settings = settings
        self.trainable = Trainable(decoder) if trainable is None else trainable
        self._watch = self.trainable.watch(together)
        self._parameters = [each.tensor for each in self.trainable.parameters]
        scale = 1.0 if self.loss_scale is None else self.loss_scale.scale
        # Where recorded steps read it.
        self._loss_scale = torch.full((), scale, dtype=torch.float32, device=precision.device)

    def __call__(self, step: int, batch: TokenBatch) -> StepResult:
        """Take step number `step` (counted from 0) on a batch on the model's device.

        Raises:
            TrainingError: a gradient is not finite; nothing was changed.
        """
        settings, scale = self.settings, self.loss_scale
        multiplier = self.lowered * settings.schedule.multiplier(step, settings.steps)
        watched, parts = settings.watches(step), None
        try:
            if scale is not None:
                self._loss_scale.fill_(scale.scale)
            metrics, total_norm = self._gradients(batch, watched)
            norm, loss = self._read(total_norm, metrics)
            moved = math.isfinite(norm)
            if moved:
                if watched:
                    self._watch.before(1.0 if scale is None else scale.scale)
                self._scale_gradients(norm)
                self.optimizer.step(step, multiplier)
                self.trainable.moved()
                parts = self._watch.after() if watched else None
                if self.average is not None:
                    self.average.update(step)
            elif scale is None or scale.exhausted:
                raise self._failure(step, metrics)
        except BaseException:
            self._forget()
            raise
        if moved:
            self.clipper.observe(norm)
            if metrics.loads:
                update_balance(self.decoder, metrics.loads)
        if scale is not None:
            scale.update(finite=moved)
        self._forget(balance=not moved)
        rate = self.optimizer.learning_rate * multiplier
        pieces = self._cuts(batch)
        pressure = self._make_room()
        rows = batch.tokens.shape[0] // pieces
        return StepResult(metrics, loss, norm, rate, moved, parts, pieces, rows, pressure)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Let the decoder hold the average of its weights, if one is kept."""
        return contextlib.nullcontext() if self.average is None else self.average.swapped()

    def rehearse(self, batch: TokenBatch) -> None:
        """Compute the gradients of one micro-batch and forget them, as measurements do."""
        try:
            staged = self.together is not None and self.together.pipeline is not None
            cuts = self._cuts(batch) if staged else 1
            float(self._accumulate(batch, cuts).loss)  # waits for the device
        finally:
            self._forget()

    def record(self, record: Record = cuda_graph) -> None:
        """Let steps be recorded, in this way, and repeated from the next one on."""
        if self.settings.offload.activations:
            self.tell("Steps run kernel by kernel, for activations come and go (train.offload).")
            return

        def compute(batch: TokenBatch) -> StepMetrics:
            return self._accumulate(batch, self._cuts(batch), watched=True)

        self.recorded = RecordedGradients(
            self._parameters, compute, self._forget, lambda said: self.tell(said), record
        )

    def _gradients(self, batch: TokenBatch, watched: bool) -> tuple[StepMetrics, Tensor]:
        """Compute the gradients of a batch, in smaller pieces where memory does not suffice.

        Returns what they add up to, and their norm.
        """
        states = torch_states()
        while True:
            try:
                return self._computed(batch, watched)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).partition("\n")[0]
            if self.together is not None:  # the others wait for this one's part of the batch
                raise (CrowdedError if self.together.joins_anew else NoRoomError)(
                    f"A micro-batch does not fit into the memory of this process: {said}",
                    hint="Set train.gradient_accumulation higher, or share the model among more "
                    "processes (parallel.shard).",
                )
            # Outside the handler, whose traceback holds on to what the passes had made.
            self._forget()
            set_torch_states(states)
            self.cut_finer(batch, said)

    def _computed(self, batch: TokenBatch, watched: bool) -> tuple[StepMetrics, Tensor]:
        found = None if self.recorded is None else self.recorded(batch)
        if found is not None:
            return found
        if self.together is not None:
            self.together.fresh()  # weights moved since they were gathered
        metrics = self._accumulate(batch, self._cuts(batch), watched=watched)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.together is None:
            return metrics, torch.nn.utils.get_total_norm(gradients)
        return metrics, metrics.summed(self.together, self.trainable.norms())

    def _cuts(self, batch: TokenBatch) -> int:
        """Return how many equal pieces a batch is computed in: as many as others, or a few more."""
        rows = batch.tokens.shape[0]
        return next((n for n in range(self.pieces, rows) if rows % n == 0), rows)

    def cut_finer(self, batch: TokenBatch, said: str) -> None:
        """Cut batches into the next larger number of equal pieces that this one has.

        Raises:
            NoRoomError: it is cut into single rows already.
        """
        rows, cuts = batch.tokens.shape[0], self._cuts(batch)
        finer = next((n for n in range(cuts + 1, rows + 1) if rows % n == 0), None)
        if finer is None and self.recorded is not None and not self.recorded.refused:
            self.recorded, self.pieces = None, self.settings.gradient_accumulation
            self._return_memory()
            self.tell(
                "Steps run kernel by kernel: recorded as a CUDA graph, which keeps the memory of "
                "its passes, not even one row of a batch fits."
            )
            return
        if finer is None:
            raise NoRoomError(
                f"Not even one row of a batch fits into memory: {said}",
                hint="Lower model.context, set train.activation_checkpointing=true, or make the "
                "model smaller.",
            )
        self.tell(
            f"Memory does not suffice for {rows // cuts} rows at once; from here on a batch "
            f"is computed in {finer} micro-batches of {rows // finer}. Nothing is lost; a run of "
            f"train.gradient_accumulation={finer} does so from the beginning."
        )
        self.pieces = finer
        self._return_memory()

    def _make_room(self) -> float | None:
        """Cut the next step as memory allows, and return the reading that this follows."""
        if self.pressure is None:
            return None
        pieces, pressure = self.pressure.decide(self.pieces)
        if pieces > self.pieces:
            self._return_memory()
        if pieces != self.pieces and self.recorded is not None:
            self.recorded.renew()
        self.pieces = pieces
        return pressure

    def _return_memory(self) -> None:
        gc.collect()  # what failed may hold on to itself
        if self._loss_scale.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            return_freed_memory()

    def _accumulate(self, batch: TokenBatch, cuts: int, *, watched: bool = False) -> StepMetrics:
        """Add up the gradients of all micro-batches, and the routers' entropies where watched."""
        metrics = StepMetrics()
        pieces = list(batch.split(cuts))
        blocks, together = self.compiled_blocks, self.together
        counts = total_counts((self._objective.counts(piece) for piece in pieces), together)
        draws = contextlib.nullcontext() if together is None else together.draws

        @contextlib.contextmanager
        def passing() -> Iterator[None]:
            with draws, self.precision.autocast(), self._saving():
                yield

        def learned(found: Terms) -> Tensor:
            loss = metrics.add(found, counts, entropies=watched)
            return loss if self.loss_scale is None else loss * self._loss_scale

        with contextlib.nullcontext() if blocks is None else blocks.installed():
            if together is not None and together.pipeline is not None:
                together.through_stages(pieces, self._work(learned, passing))
                pieces = []
            for piece in pieces:
                if together is not None:
                    together.before(last=piece is pieces[-1])
                with passing():
                    loss = learned(self._objective(self._models, piece))
                Tensor.backward(loss) if together is None else together.backward(loss)
        if together is not None:
            together.after()
        self.trainable.take_gradients()
        return metrics

    def _work(
        self,
        learned: Callable[[Terms], Tensor],
        passing: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> Work:
        """Return what stages compute: the last one the objective, others their routers' terms."""

        def loss(decoder: Callable[..., Output], piece: TokenBatch) -> Tensor:
            return learned(self._objective(replace(self._models, decoder=decoder), piece))

        def routers(piece: TokenBatch, stats: tuple[RouterStats, ...]) -> Tensor | None:
            terms = tuple(router_terms(stats, lambda layer: "tokens"))
            return learned(Terms(terms, stats)) if stats else None

        return Work(loss, routers, passing)

    def _saving(self) -> contextlib.AbstractContextManager[None]:
        """Say where what the backward pass needs is kept."""
        if not self.settings.offload.activations:
            return contextlib.nullcontext()
        return activations_away(self.decoder.parameters())

    def _read(self, total_norm: Tensor, metrics: StepMetrics) -> tuple[float, float]:
        """Return the norm over all gradients together, loss scale taken out, and the loss.

        Here a step waits for its device, once: the gradients must be known to be finite before
        anything moves. The loss is on the way already, so nobody has to wait for it later.
        """
        norm, loss = read_scalars(total_norm, metrics.loss)
        return norm if self.loss_scale is None else norm / self.loss_scale.scale, loss

    def _forget(self, *, balance: bool = True) -> None:
        """Drop the gradients and, where no step was made, what the balances observed."""
        for parameter in self._parameters:
            parameter.grad = None
        self.trainable.forget()
        if balance:
            for part in routed_layers(self.decoder).values():
                part.balance.forget()

    def _failure(self, step: int, metrics: StepMetrics) -> TrainingError:
        """Return the error of gradients that are not finite, whatever the loss scale."""
        return TrainingError(
            f"At step {step + 1} {self._bad_gradient()}; the loss was "
            f"{float(metrics.loss):.4g}. The update was not made.",
            hint="Lower train.optimizer.learning_rate or raise train.schedule.warmup; the run's "
            "checkpoints from before are sound.",
        )

    def _bad_gradient(self) -> str:
        """Say which gradient is not finite, the first that any process knows of."""
        found = self._first_bad_gradient()
        said = [found] if self.together is None else self.together.ranks.gather(found)
        none = "the norm of all gradients together is too large for float32"
        return next((each for each in said if each), none)

    def _first_bad_gradient(self) -> str | None:
        for name, _, parameter, _ in self.trainable.parameters:
            gradient = self.trainable.gradient(parameter)
            if gradient is not None and not torch.isfinite(gradient).all():
                bad = int((~torch.isfinite(gradient)).sum())
                total = gradient.numel()
                return f"the gradient of {name} is not finite ({bad:,} of {total:,} values)"
        return None

    def _scale_gradients(self, norm: float) -> None:
        """Take the loss scale out and bound the norm, in one pass over the gradients if any."""
        factor = 1.0 if self.loss_scale is None else 1.0 / self.loss_scale.scale
        limit = self.clipper.limit()
        if limit is not None and norm > limit:
            factor *= limit / norm
        self.trainable.scale(factor, norm)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of a device or the machine's, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def read_scalars(*values: Tensor | float) -> list[float]:
    """Return the numbers that tensors hold; on a GPU in one copy, with one wait for all."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or tensors[0].device.type != "cuda":
        return [float(value) for value in values]
    on_device = torch.stack([value.detach().double() for value in tensors])
    copied = on_device.to("cpu", non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    done.synchronize()
    read = iter([float(each) for each in copied])  # of an estimate's too, which have no list
    return [next(read) if isinstance(value, Tensor) else value for value in values]
