"""The settings of a run: what to train on, what to train, how.

`RunSettings` is the whole configuration: the same file describes a preset, travels in every run and
checkpoint, and is what `key=value` words change.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coterie.data import DataSettings
from coterie.data.curriculum import Stages
from coterie.data.datasets import with_datasets
from coterie.foundation.settings import Settings
from coterie.generate import SamplingSettings
from coterie.model import DecoderSettings
from coterie.parallel import Parallel
from coterie.tokenizer.settings import Characters, TokenizerSettings
from coterie.train.clip import Clip, NormClip
from coterie.train.length import Every, in_epochs
from coterie.train.monitor.trackers import Tracker
from coterie.train.objective import LanguageModel, ObjectiveSettings
from coterie.train.offload import Offload
from coterie.train.optimizer import AdamW, OptimizerSettings
from coterie.train.precision import PrecisionName
from coterie.train.schedule import Cosine, Schedule

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
_EVALUATION_TOKENS = 8192
_USUAL_STEPS = 250  # between evaluations, and between checkpoints


class TrainSettings(Settings):
    """How a decoder is trained.

    `batch_size` is the whole batch of one optimizer step; `gradient_accumulation` only says in how
    many micro-batches it is computed, so changing it changes memory and not the experiment.

    A run told in `epochs` gets its `steps` from the data: until they are known it counts one an
    epoch, afterwards `epoch_steps`.
    """

    renamed = {"accumulation": "gradient_accumulation", "recompute": "activation_checkpointing"}

    instead = {
        "epochs": ("steps", "epoch_steps", "evaluate_every", "checkpoint_every", "sample_every"),
        "steps": ("epochs", "epoch_steps"),
    }

    steps: int = Field(default=1000, ge=1, description="optimizer steps")
    epochs: int | None = Field(
        default=None,
        ge=1,
        description="passes over the training text, instead of steps; evaluation, samples and "
        "checkpoints then come once in each, unless said otherwise",
    )
    epoch_steps: int | None = Field(
        default=None, ge=1, description="steps of one epoch; taken from the data"
    )
    batch_size: int = Field(default=32, ge=1, description="windows in one optimizer step")
    gradient_accumulation: int = Field(
        default=1, ge=1, description="micro-batches that one step's batch is computed in"
    )
    dynamic_batch: bool = Field(
        default=False,
        description="compute fewer rows at once where memory becomes short, more where there is "
        "plenty; the batch of a step stays",
    )
    objective: ObjectiveSettings = Field(
        default=LanguageModel(), description="what each step minimises"
    )
    optimizer: OptimizerSettings = Field(
        default=AdamW(), description="how gradients move the weights"
    )
    schedule: Schedule = Field(
        default=Cosine(), description="the learning rate over the steps, warm-up included"
    )
    clip: Clip = Field(default=NormClip(), description="the bound on the gradient norm")
    precision: PrecisionName = Field(
        default="auto", description="type of the products; auto measures which is faster here"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    compile: bool | Literal["auto"] = Field(
        default=False,
        description="compile the decoder, on a GPU block by block; auto: if that gains more time "
        "than it takes",
    )
    compile_mode: CompileMode = Field(
        default="default", description="how torch compiles, by its own names, where it does"
    )
    cudnn_benchmark: bool = Field(
        default=False,
        description="on an NVIDIA GPU, let cuDNN time its algorithms for each shape and take the "
        "fastest; which one that is may differ from run to run",
    )
    prefetch: int = Field(default=2, ge=1, le=1024, description="batches prepared ahead of a step")
    cuda_graph: bool = Field(
        default=True,
        description="on an NVIDIA GPU, record a step's passes once and repeat them in one launch",
    )
    threads: int | None = Field(
        default=None, ge=1, description="threads to compute with on the CPU; None: torch's choice"
    )
    activation_checkpointing: bool | Literal["selective"] = Field(
        default=False,
        description="keep only the blocks' inputs and recompute the rest when going back; "
        "selective: keep what matrix products return too",
    )
    offload: Offload = Field(
        default=Offload(),
        description="on a GPU, what waits in host memory while it is not needed: activations, "
        "optimizer, or a list of both; costs the time of the copies",
    )
    evaluate_every: Every = Field(
        default=None,
        description="steps between evaluations, or “2 epochs”; 0: only after the last step; None: "
        "250, or one epoch where train.epochs is given",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="evaluations in a row without a better loss that end the run; None: it goes on",
    )
    improvement: float = Field(
        default=0.0, ge=0, description="nats per token by which a loss must be lower to be better"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, 0.999 say, which is what is "
        "evaluated, sampled from and saved as the model; None: the weights themselves are",
    )
    checkpoint_every: Every = Field(
        default=None, description="steps between checkpoints, told as those between evaluations"
    )
    checkpoint_first: bool = Field(
        default=False, description="write a checkpoint of step 0 too, before anything is learnt"
    )
    keep: int = Field(default=2, ge=1, description="newest checkpoints kept, and the best besides")
    keep_every: int | None = Field(
        default=None, ge=1, description="checkpoints of every so many steps are kept too"
    )
    save_in_background: bool = Field(
        default=False,
        description="write checkpoints in a thread while steps go on, from a copy of weights and "
        "moments in memory",
    )
    sample_every: Every = Field(
        default=None,
        description="steps between samples, or “2 epochs”; None: at each evaluation; 0: never",
    )
    prompts: tuple[str, ...] = Field(default=("\n",), description="what samples go on from")
    log_every: int = Field(default=1, ge=1, description="steps between recorded steps")
    load_every: int = Field(
        default=20, ge=1, description="steps that one record of the load per expert sums up"
    )
    health_every: int = Field(
        default=20,
        ge=0,
        description="steps between measurements of the routers' entropy and of gradients and "
        "updates part by part; 0: none",
    )
    watch_every: int = Field(
        default=0,
        ge=0,
        description="steps between looks into routers and stream for `coterie watch`, on up to "
        "1,024 tokens of the step's batch; 0: none",
    )
    trackers: tuple[Tracker, ...] = Field(default=(), description="where else events are sent")

    @model_validator(mode="after")
    def _even_pieces(self) -> Self:
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be cut into "
                f"gradient_accumulation={self.gradient_accumulation} equal micro-batches"
            )
        if self.judges and self.evaluate_every == 0:
            raise ValueError(f"{self.judges} goes by evaluations; evaluate_every=0 leaves one")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None:
            if "steps" in self.model_fields_set:
                raise ValueError(
                    f"steps={self.steps} and epochs={self.epochs} both say how long the run is; "
                    "leave one out"
                )
            object.__setattr__(self, "steps", self.epochs * (self.epoch_steps or 1))
        return self

    @model_serializer(mode="wrap")
    def _as_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in self.derived}

    @property
    def derived(self) -> frozenset[str]:
        return frozenset() if self.epochs is None else frozenset({"steps"})

    @property
    def counts_epochs(self) -> bool:
        """Whether anything of the run is told in epochs, so that an epoch's steps must be known."""
        often = (self.evaluate_every, self.checkpoint_every, self.sample_every)
        return self.epochs is not None or any(map(in_epochs, often))

    def with_epoch_of(self, steps: int) -> TrainSettings:
        """Return the settings of a run whose epochs have so many steps."""
        found: dict[str, Any] = {"epoch_steps": steps}
        if self.epochs is not None:
            found["steps"] = self.epochs * steps
        return self.model_copy(update=found)

    def spacing(self, every: int | str | None) -> int:
        """Return the steps between what is done so often; 0: only after the last one.

        None is the usual: an epoch where the run is told in epochs. Of a run whose data are known.
        """
        if every is None:
            return _USUAL_STEPS if self.epochs is None else self.epoch_steps or 1
        if isinstance(every, int):
            return every
        assert self.epoch_steps is not None
        return max(1, round(in_epochs(every) * self.epoch_steps))

    @property
    def judges(self) -> str | None:
        """What goes by the validation loss while training, if anything does."""
        if self.patience is not None:
            return "patience"
        return "the schedule" if self.schedule.judges else None

    def watches(self, step: int) -> bool:
        """Whether a step, counted from 0, is one whose routers, gradients and updates are told."""
        every = self.health_every
        return every > 0 and ((step + 1) % every == 0 or step + 1 == self.steps)

    @property
    def micro_batch_size(self) -> int:
        """Windows computed at once."""
        return self.batch_size // self.gradient_accumulation

    def evaluation_batch_size(self, context: int) -> int:
        """Windows evaluated at once: at least as many as are trained on at once."""
        return max(self.micro_batch_size, _EVALUATION_TOKENS // context)


class RunSettings(Settings):
    """One run: data, tokenizer, model, training, and how it samples."""

    description: str = Field(default="", description="what this run is, in a sentence")
    seed: int = Field(
        default=1337, ge=0, lt=1 << 63, description="of initial weights, data order and dropout"
    )
    data: DataSettings = Field(
        default=DataSettings(), description="where the text comes from and how it is divided"
    )
    tokenizer: TokenizerSettings = Field(
        default=Characters(), description="how text becomes tokens"
    )
    model: DecoderSettings = Field(description="the decoder")
    train: TrainSettings = Field(default=TrainSettings(), description="how the decoder is trained")
    sample: SamplingSettings = Field(
        default=SamplingSettings(), description="how samples and `generate` draw by default"
    )
    parallel: Parallel | None = Field(
        default=None, description="how several processes divide the run; None: they share the rows"
    )
    align: dict[str, Any] | None = Field(
        default=None,
        description="what an alignment run (`coterie align`) does, and the run it began from",
    )

    @model_validator(mode="before")
    @classmethod
    def _datasets(cls, values: Any) -> Any:
        return with_datasets(values)

    @property
    def stages(self) -> Stages:
        """The shapes of batches, step by step.

        Raises:
            SettingsError: rows would be none, or longer than the context.
        """
        train = self.train
        return Stages(
            self.row_length, train.batch_size, self.data.curriculum, train.gradient_accumulation
        )

    @property
    def row_length(self) -> int:
        """Tokens of a row: the context, or less where an alignment packs short texts."""
        return (self.align or {}).get("max_length") or self.model.context

    @model_validator(mode="after")
    def _fitting_lengths(self) -> Self:
        if self.data.curriculum is not None:
            _ = self.stages
        if self.data.stream is not None and self.train.counts_epochs:
            raise ValueError(
                "a stream (data.stream) is not counted before it is read, so nothing of the run "
                "can be told in epochs; say train.steps, and steps for what is done now and then"
            )
        return self


Status = Literal["finished", "interrupted", "failed"]
