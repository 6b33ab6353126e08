"""A trained model from Python: it writes, streams and scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, overload

import coterie.train as training  # its names are imported when first used
from coterie.api.given import layer_of
from coterie.checkpoint import LoadedModel, is_checkpoint, load_model
from coterie.checkpoint.layout import CONFIG
from coterie.evaluate import Perplexity, Scoring, TextScore, perplexity_of, score_texts
from coterie.foundation.errors import CheckpointError, UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.records import validated
from coterie.generate import (
    Engine,
    FinishReason,
    Generation,
    Piece,
    Report,
    Request,
    SamplingSettings,
    TopLogprobs,
)
from coterie.generate.resumable import ResumableText
from coterie.generate.sampling.settings import OF_DRAWING
from coterie.generate.watched import WatchedText
from coterie.model import Decoder, count
from coterie.model.observe import Steering
from coterie.quantise import WeightSettings, chosen_weights, stored_bytes, weights_of
from coterie.tokenizer.chat import template_of
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.stream import pieces_of
from coterie.train.precision import resolve_device
from coterie.visualise.console import note
from coterie.visualise.notebook import facts_html

if TYPE_CHECKING:
    from coterie.train.settings import RunSettings

_HINT = (
    "Run: coterie settings sample  to see the keys. On the command line a prompt that looks like "
    "key=value comes through standard input: echo PROMPT | coterie generate RUN -"
)
_TEXT = '<div style="white-space:pre-wrap">{}</div>'


class Sampling(TypedDict, total=False):
    """How a text is drawn: the keys of a run's `sample` settings."""

    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    repetition_window: int
    frequency_penalty: float
    presence_penalty: float
    logit_bias: dict[str, float] | dict[int, float]
    order: tuple[str, ...] | list[str]
    seed: int
    min_tokens: int
    max_tokens: int
    stop: str | tuple[str, ...] | list[str]
    logprobs: int
    logprobs_mode: str
    best_of: int
    report: bool
    beams: Any
    constraints: Any
    structure: Any
    verse: Any
    form: str
    metre: str
    rhyme: str
    grammar: Any
    json_schema: Any
    regex: Any
    choices: Any
    speculation: Any
    cache: Any
    compute: str


@dataclass(frozen=True)
class Text(Generation):
    """A generated text; `str(text)` is the text without its prompt."""

    @classmethod
    def of(cls, made: Generation) -> Self:
        return cls(**vars(made))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        dim = f'<span style="opacity:.55">{escape(self.prompt)}</span>'
        return _TEXT.format(dim + escape(self.text))


class StreamedText(str):
    """What one token added to a text; empty while a character is unfinished.

    Attributes:
        token: the token.
        logprob: its log-probability in nats, the model's own unless asked otherwise.
        top_logprobs: the likeliest tokens, as many as `logprobs` asks for, with theirs.
        finish_reason: why the text ended; None but for its last piece.
        report: of the last piece, what constraints did, where `report` asks for it.
    """

    token: int
    logprob: float
    top_logprobs: TopLogprobs
    finish_reason: FinishReason | None
    report: Report | None

    def __new__(cls, piece: Piece) -> Self:
        text = super().__new__(cls, piece.text)
        text.token, text.finish_reason = piece.token, piece.finish_reason
        text.logprob, text.top_logprobs = piece.logprob, piece.top_logprobs
        text.report = piece.report
        return text


@dataclass(frozen=True)
class Score(Perplexity):
    """How well a model predicts a text: perplexity, nats per token, bits per byte, every token.

    Attributes:
        token_logprobs: what each token adds to the text, and its log-probability in nats.
    """

    token_logprobs: tuple[tuple[str, float], ...] = ()

    def __float__(self) -> float:
        return self.perplexity

    def __repr__(self) -> str:
        return (
            f"<Score perplexity {self.perplexity:.4g}, {self.nats_per_token:.4f} nats per token, "
            f"{self.bits_per_byte:.4f} bits per byte, {self.tokens:,} tokens>"
        )

    def _repr_html_(self) -> str:
        """Return the text, each token the redder the less it was expected."""
        spans = "".join(
            f'<span title="{logprob:.3f}" style="background:rgba(194,84,13,'
            f'{min(-logprob / 10, 0.9):.2f})">{escape(text)}</span>'
            for text, logprob in self.token_logprobs
        )
        return f"<p>{escape(repr(self)[1:-1])}</p>" + _TEXT.format(spans)


class Model:
    """A trained model, ready to write.

    Attributes:
        decoder: the network, a `torch.nn.Module` in evaluation mode.
        path: the checkpoint that it came from.
        step: optimizer steps that it was trained for.
    """

    def __init__(self, loaded: LoadedModel, device: str = "auto") -> None:
        self._loaded = loaded
        self.path, self.step = loaded.path, loaded.step
        self.decoder: Decoder = loaded.decoder.to(resolve_device(device))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with.

        Raises:
            TokenizerError: the model came without one.
        """
        return self._loaded.tokenizer

    @cached_property
    def settings(self) -> RunSettings:
        """The settings of the model's run.

        Raises:
            CheckpointError: they are not those of this version.
        """
        where = str(self.path / CONFIG)
        return validated(training.RunSettings, self._loaded.settings, where, CheckpointError)

    @overload
    def generate(
        self, prompt: str = "", *, samples: None = None, **sampling: Unpack[Sampling]
    ) -> Text: ...
    @overload
    def generate(
        self, prompt: str = "", *, samples: int, **sampling: Unpack[Sampling]
    ) -> list[Text]: ...
    def generate(
        self, prompt: str = "", *, samples: int | None = None, **sampling: Unpack[Sampling]
    ) -> Text | list[Text]:
        """Return a continuation of a prompt; `print` shows it.

            model.generate("ROMEO:", max_tokens=40, temperature=0)

        Args:
            prompt: what the text goes on from; empty: a new text begins.
            samples: return a list of this length, drawn together; their seeds count up from `seed`.
            sampling: keys of the run's own `sample` settings, laid over them.

        Raises:
            SettingsError: a key does not exist or a value does not fit.
            UserError: `samples` is less than 1.
        """
        made = self.generate_with(
            prompt, self.sampling(layer_of(sampling)), 1 if samples is None else samples
        )
        return made[0] if samples is None else made

    def chat(
        self, messages: str | Sequence[Mapping[str, str]], **sampling: Unpack[Sampling]
    ) -> Text:
        """Return the assistant's next turn in a conversation.

            model.chat("Who speaks: To be, or not to be?", temperature=0)

        Args:
            messages: what the user says; or all turns so far, each with `role` and `content`.
            sampling: keys of the run's own `sample` settings, laid over them.

        Raises:
            TokenizerError: the model has no chat template, or that refuses the conversation.
            SettingsError: a key does not exist or a value does not fit.
        """
        return self.generate(self.chat_prompt(messages), **sampling)

    def chat_prompt(self, messages: str | Sequence[Mapping[str, str]]) -> str:
        """Return a conversation as it is written for the model, the assistant's turn begun.

        Raises:
            TokenizerError: the model has no chat template, or that refuses the conversation.
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return template_of(self._loaded.settings, self.tokenizer).render(turns, ask=True)

    def generate_many(self, prompts: Iterable[str], **sampling: Unpack[Sampling]) -> list[Text]:
        """Return a continuation of each prompt, in order, generated together.

            model.generate_many(["ROMEO:", "JULIET:"], max_tokens=40)

        Each is the text that `generate` gives. One that fails has its `error`; the others go on.

        Args:
            prompts: what the texts go on from.
            sampling: keys of the run's own `sample` settings, laid over them.

        Raises:
            SettingsError: a key does not exist or a value does not fit.
            UserError: there is no prompt.
        """
        settings = self.sampling(layer_of(sampling))
        self._loaded.require_unchanged()
        made = self._engine.generate_many([Request(prompt, settings) for prompt in prompts])
        return [Text.of(each) for each in made]

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Piece]]:
        """Yield the pieces of many requests as they come; see `coterie.generate.Engine.run`."""
        self._loaded.require_unchanged()
        return self._engine.run(requests)

    def stream(self, prompt: str = "", **sampling: Unpack[Sampling]) -> Iterator[StreamedText]:
        """Yield a continuation piece by piece; joined, they are what `generate` returns.

        Raises:
            SettingsError: a key does not exist or a value does not fit.
        """
        return self.stream_with(prompt, self.sampling(layer_of(sampling)))

    @overload
    def score(
        self, text: str, *, stride: int | None = None, window: int | None = None
    ) -> Score: ...
    @overload
    def score(
        self,
        text: list[str] | tuple[str, ...],
        *,
        stride: int | None = None,
        window: int | None = None,
    ) -> list[Score]: ...
    def score(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        stride: int | None = None,
        window: int | None = None,
    ) -> Score | list[Score]:
        """Return how well the model predicts a text, exactly as it is given.

        Args:
            text: any text; several are read side by side and their scores returned as a list.
            stride: tokens between windows; None: windows are disjoint. Smaller than a window, each
                token has more past, at more work.
            window: tokens of a window; None: the model's context.

        Raises:
            DataError: a text is empty.
            UserError: the stride lies outside the window.
        """
        texts = [text] if isinstance(text, str) else text
        self._loaded.require_unchanged()
        scored = score_texts(self.decoder, self.tokenizer, texts, Scoring(window, stride))
        found = [self._score(each) for each in scored]
        return found[0] if isinstance(text, str) else found

    def _score(self, scored: TextScore) -> Score:
        pieces = pieces_of(self.tokenizer, scored.tokens)
        logprobs = tuple(zip(pieces, scored.logprobs.tolist(), strict=True))
        return Score(**vars(perplexity_of([scored], self.tokenizer)), token_logprobs=logprobs)

    def sampling(self, *layers: Layer) -> SamplingSettings:
        """Return the run's own sampling settings with layers laid over them.

        Where a layer asks for beams, what the run's own say of drawing is left out.

        Raises:
            SettingsError: a key does not exist or a value does not fit.
        """
        values = self._loaded.settings.get("sample") or {}
        if any(layer.values.get("beams") for layer in layers):
            values = {key: each for key, each in values.items() if key not in OF_DRAWING}
        own = Layer("the run's sample settings", values)
        return load_settings(SamplingSettings, [own, *layers], _HINT).settings

    def generate_with(self, prompt: str, sampling: SamplingSettings, samples: int) -> list[Text]:
        """Return what `generate` does, from settings that are resolved."""
        self._loaded.require_unchanged()
        made = self._engine.generate_samples(prompt, samples, sampling)
        return [Text.of(each) for each in made]

    def stream_with(self, prompt: str, sampling: SamplingSettings) -> Iterator[StreamedText]:
        """Yield what `stream` does, from settings that are resolved."""
        self._loaded.require_unchanged()
        return map(StreamedText, self._engine.stream(prompt, sampling))

    def watch_with(
        self,
        prompt: str | Sequence[int],
        sampling: SamplingSettings,
        masked: Mapping[int, tuple[int, ...]] | None = None,
        forced: Mapping[int, tuple[int, ...]] | None = None,
        *,
        written: Sequence[int] = (),
        steered_from: int = 0,
    ) -> WatchedText:
        """Return a text to be written while its records are read; iterate over it once.

        Args:
            prompt: what it goes on from, a text or its tokens.
            sampling: resolved settings, as `sampling` returns them.
            masked, forced: experts of each layer that no token, or every token, goes to.
            written: tokens after the prompt that were drawn before, by the same settings.
            steered_from: the first token that is read with experts masked or forced.

        Raises:
            UserError: there is no such layer or expert.
        """
        self._loaded.require_unchanged()
        return WatchedText(
            self._engine, prompt, sampling, name=self.name, step=self.step, written=written,
            steering=Steering(masked or {}, forced or {}), steered_from=steered_from,
        )  # fmt: skip

    def resumable(self, path: Path, prompt: str, *layers: Layer) -> ResumableText:
        """Return the text of a session's file, or a new one if there is no such file.

        Args:
            path: of the file; nothing is written to it yet.
            prompt: of a new text.
            layers: laid over the run's own sampling settings, or over the session's.

        Raises:
            UserError: the session has a text and cannot take a prompt, or it cannot be resumed.
        """
        if not path.exists():
            tokens = self._engine.encode_prompt(prompt)
            return ResumableText(self._engine, self.sampling(*layers), tokens)
        if prompt:
            raise UserError(
                f"The session {path} has a text already and cannot take another prompt.",
                hint="Leave the prompt out to go on, or name a new file.",
            )
        return ResumableText.load(self._engine, path, layers)

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.decoder, self.tokenizer, notify=note)

    def _facts(self) -> dict[str, str]:
        counts = count(self.decoder.settings)
        known = self._loaded.own_tokenizer
        size = stored_bytes(self.decoder.parameters())
        return {
            "checkpoint": str(self.path),
            "step": f"{self.step:,}",
            "parameters": f"{counts.parameters:,}",
            "active per token": f"{counts.active_parameters:,}",
            "context": f"{self.decoder.settings.context:,}",
            "tokenizer": "none" if known is None else f"{known.kind}, {known.vocab_size:,} tokens",
            "device": str(next(self.decoder.parameters()).device),
            "weights": f"{weights_of(self.decoder) or _dtype(self.decoder)}, {size:,} bytes",
        }

    @property
    def name(self) -> str:
        """The run's name, or the checkpoint's where it lies in no run."""
        absolute = self.path.absolute()
        inside = absolute.parent.name == "checkpoints"
        return (absolute.parents[1] if inside else absolute).name

    def __repr__(self) -> str:
        facts = self._facts()
        return (
            f"<Model {self.name}, step {facts['step']}: {facts['parameters']} parameters, "
            f"{facts['active per token']} active, on {facts['device']}>"
        )

    def _repr_html_(self) -> str:
        return facts_html(f"Model {self.name}", self._facts().items())


def load(
    target: str | Path = "latest",
    *,
    step: int | None = None,
    device: str = "auto",
    weights: WeightSettings | Mapping[str, Any] | str | None = None,
) -> Model:
    """Load a trained model.

        model = coterie.load("demo")

    Args:
        target: a run's name, `latest`, or the path of a run or checkpoint.
        step: one of the run's checkpoints; None: the newest sound one.
        device: auto, cpu, cuda, cuda:1, mps.
        weights: quantise the weights while they are loaded: "int8", "int4", or settings such as
            `{"kind": "int4", "head": "float32"}`; None: as they were stored.

    Raises:
        SettingsError: there is no such format of weights.
        RunError: there is no such run; the message names the nearest.
        CheckpointError: there is no sound checkpoint.
        UserError: the target is a model of another format, or the device cannot be used.
    """
    if weights is not None and not isinstance(weights, WeightSettings):
        weights = chosen_weights(layer_of({"weights": weights}))
    try:
        loaded = load_model(target, step=step, on_damaged=tell_damaged, weights=weights)
    except UserError:  # a run comes before a folder of the same name
        _refuse_foreign(Path(target))
        raise
    return Model(loaded, device)


def _dtype(decoder: Decoder) -> str:
    return str(next(decoder.parameters()).dtype).removeprefix("torch.")


def tell_damaged(path: Path, problem: str) -> None:
    """Say that a checkpoint was passed over because it is damaged."""
    note(f"the checkpoint {path.name} is damaged ({problem}); using the one before it.")


def _refuse_foreign(path: Path) -> None:
    """Refuse a model in another format, with the command that makes a run of it."""
    folder = (path / "config.json").is_file() and not (path / CONFIG).is_file()
    file = path.suffix.lower() == ".gguf" and path.is_file()
    if file or (folder and not is_checkpoint(path)):
        kind = "a GGUF file" if file else "a folder of Hugging Face"
        raise UserError(
            f"{path} is {kind}, which is imported before it is used.",
            hint=f"Make a run of it: coterie model import {path} --name {path.resolve().stem}",
        )
