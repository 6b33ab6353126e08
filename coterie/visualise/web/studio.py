"""The texts on show: read from traces, or written by a model one after the other and watched."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.printable import printable
from coterie.foundation.traces import Trace, TraceHeader
from coterie.visualise.web.pack import opening, packed, tokens

MOST_TOKENS = 20_000  # of a text that the page asks for
MOST_TEXTS = 64
MOST_LAPSE, MOST_STEPS = 2_048, 12  # tokens that checkpoints read, and how many of these
Experts = Mapping[int, tuple[int, ...]]


class Drawing(BaseModel):
    """How a text is drawn, what the page may say of it; None: as the command said."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    seed: int | None = Field(default=None, ge=0, lt=1 << 31)


class Ask(BaseModel):
    """A text that the page asks for.

    Attributes:
        prompt: what it goes on from; with `after`, left out.
        after: a text on show that it is another way of: it has its prompt and its seed.
        upto: tokens of that text which stay as they are; the hand reaches in from the reading of
            the last of them. None: of the whole text there is but the prompt.
        masked, forced: experts as “layer:expert”.
        step: of the checkpoint that writes; None: the one that the command named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(default="", max_length=200_000)
    after: int | None = None
    upto: int | None = Field(default=None, ge=1)
    drawing: Drawing = Drawing()
    masked: tuple[str, ...] = Field(default=(), max_length=256)
    forced: tuple[str, ...] = Field(default=(), max_length=256)
    step: int | None = None
    title: str = Field(default="", max_length=200)


class Effect(BaseModel):
    """What experts are worth to a text on show: it is read again without, or with, them.

    Attributes:
        controls: how many draws of as many other experts of the same layers it is compared with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: int
    masked: tuple[str, ...] = Field(default=(), max_length=256)
    forced: tuple[str, ...] = Field(default=(), max_length=256)
    controls: int = Field(default=5, ge=1, le=20)
    seed: int = Field(default=1, ge=0, lt=1 << 31)


class Lapse(BaseModel):
    """A text on show that each checkpoint of the run is to read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: int


class Writing(Protocol):
    """A text while it is written: iterated over once, it yields records, texts and words."""

    header: TraceHeader

    @property
    def finish_reason(self) -> str | None: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Start:
    """What a text goes on from.

    Attributes:
        prompt: a text, or its tokens.
        written: tokens after it that were drawn before.
        steered_from: the first token that is read with a hand in the routing.
    """

    prompt: str | Sequence[int]
    written: Sequence[int] = ()
    steered_from: int = 0


class Author(Protocol):
    """A model that writes, and scores what was written."""

    def facts(self) -> dict[str, Any]: ...
    def write(self, start: "Start", ask: Ask, masked: Experts, forced: Experts) -> Writing: ...
    def surprises(
        self, tokens: Sequence[int], step: int, masked: Experts, forced: Experts
    ) -> np.ndarray: ...
    def selections(self, tokens: Sequence[int], step: int) -> dict[int, np.ndarray]: ...


class Shown:
    """A text on show, and the pieces of it that have come."""

    def __init__(self, number: int, title: str, header: TraceHeader, ask: Ask | None) -> None:
        self.number, self.title, self.header, self.ask = number, title, header, ask
        self.parts: list[tuple[np.ndarray, list[str], Mapping[int, str]]] = []
        self.ending: str | None = None
        self.problem: str | None = None
        self.stopped = False

    @property
    def done(self) -> bool:
        return self.ending is not None or self.problem is not None

    def since(self, part: int) -> dict[str, Any] | None:
        """Return what has come since a part, as the page reads it; None: nothing."""
        new = self.parts[part:]
        if not new:
            return None
        records = np.concatenate([each[0] for each in new])
        words = {token: word for each in new for token, word in each[2].items()}
        return tokens(records, [text for each in new for text in each[1]], words)

    def trace(self) -> Trace:
        """Return what has come so far."""
        parts = list(self.parts)
        records = [np.empty(0, self.header.record_type()), *(each[0] for each in parts)]
        words = {token: word for each in parts for token, word in each[2].items()}
        texts = [text for each in parts for text in each[1]]
        return Trace(self.header, np.concatenate(records), texts, words, self.ending)

    def facts(self) -> dict[str, Any]:
        """Return the text's name, hand and state, without its tokens."""
        ask = self.ask
        return {
            "id": self.number, "title": self.title, "done": self.done, "problem": self.problem,
            "step": self.header.step, "live": ask is not None,
            "masked": list(self.header.masked), "forced": list(self.header.forced),
            "drawing": self.header.sampling,
        }  # fmt: skip

    def opening(self) -> dict[str, Any]:
        return {**self.facts(), **opening(self.header)}

    def pack(self) -> dict[str, Any]:
        return packed(self.trace(), self.title)


class Studio:
    """All texts on show.

    One thread writes, text after text: watching hangs hooks on the decoder, and two who watched it
    at once would see each other's passes.

    Args:
        author: None: traces are shown and nothing is written.
        damaged: told what went wrong inside, for whoever looks after the server.
    """

    def __init__(
        self, author: Author | None = None, damaged: Callable[[str], None] = print
    ) -> None:
        self.author, self._damaged = author, damaged
        self.texts: dict[int, Shown] = {}
        self._lock, self._model = threading.Lock(), threading.Lock()
        self._waiting: SimpleQueue[tuple[Shown, Writing]] = SimpleQueue()
        if author is not None:
            threading.Thread(target=self._work, daemon=True).start()

    def show(self, trace: Trace, title: str) -> Shown:
        """Put a trace on show."""
        shown = self._place(title, trace.header, None)
        shown.parts.append((trace.records, trace.texts, trace.words))
        shown.ending = trace.ending or "cut short"
        return shown

    def find(self, number: int) -> Shown:
        """Return a text.

        Raises:
            UserError: there is none of that number.
        """
        if number not in self.texts:
            raise UserError(f"There is no text {number} here.")
        return self.texts[number]

    def write(self, ask: Ask) -> Shown:
        """Have a text written; it comes as it is written.

        Raises:
            UserError: nothing can be written here, or not so.
        """
        author = self._author()
        start = Start(ask.prompt)
        if ask.after is not None:
            start = _begun(self.find(ask.after).trace(), ask.upto)
        masked, forced = experts(ask.masked), experts(ask.forced)
        writing = author.write(start, ask, masked, forced)  # which reads nothing yet: none waits
        shown = self._place(ask.title or _title(ask), writing.header, ask)
        self._waiting.put((shown, writing))
        return shown

    def effect(self, asked: Effect) -> dict[str, Any]:
        """Return what a text's own tokens cost with a hand in the routing, and with random ones.

        A hand's worth is the mean of −log p(token) with it, less the same without, over all tokens
        but the first, in nats: the text stays what it is, so that the same places are compared.

        Raises:
            UserError: nothing can be computed here, or not so.
        """
        author, shown = self._author(), self.find(asked.text)
        masked, forced = experts(asked.masked), experts(asked.forced)
        if not masked and not forced:
            raise UserError("No expert was named that is to be masked or forced.")
        kept, step = shown.trace().records["token"].tolist(), shown.header.step
        draw = random.Random(asked.seed)
        controls = []
        with self._model:
            plain = author.surprises(kept, step, {}, {})
            own = author.surprises(kept, step, masked, forced)
            for _ in range(asked.controls):
                others = _others(shown.header.experts, masked, forced, draw)
                if others is None:
                    break
                cost = author.surprises(kept, step, *others)
                controls.append({"masked": names(others[0]), "forced": names(others[1]),
                                 "gain": float(np.mean(cost - plain))})  # fmt: skip
        return {
            "masked": names(masked), "forced": names(forced), "tokens": len(plain),
            "plain": float(plain.mean()), "gain": float(np.mean(own - plain)),
            "each": np.round(own - plain, 5).tolist(), "controls": controls,
        }  # fmt: skip

    def lapse(self, asked: Lapse) -> dict[str, Any]:
        """Return how each checkpoint of the run, at most `MOST_STEPS`, reads a text's beginning.

        `experts` are those of first rank of each token, −1: none; `kept` is the share of a token's
        experts at the last checkpoint that it has at this one, `even` the same by accident, k / E.

        Raises:
            UserError: nothing can be read here.
        """
        author, shown = self._author(), self.find(asked.text)
        tokens = shown.trace().records["token"].tolist()[:MOST_LAPSE]
        steps = sorted(author.facts()["steps"])
        places = np.linspace(0, len(steps) - 1, min(MOST_STEPS, len(steps))).astype(int)
        steps = [steps[place] for place in places]
        with self._model:
            routed = [author.selections(tokens, step) for step in steps]
            costs = [author.surprises(tokens, step, {}, {}).mean() for step in steps]
        layers = []
        for layer, last in routed[-1].items():
            count = shown.header.experts[layer]
            layers.append({
                "layer": layer, "even": float((last < count).sum(1).mean()) / count,
                "experts": [np.where(each[layer][:, 0] < count, each[layer][:, 0], -1).tolist()
                            for each in routed],
                "kept": [_kept(each[layer], last, count) for each in routed],
            })  # fmt: skip
        return {"text": asked.text, "steps": steps, "layers": layers,
                "surprise": [float(cost) for cost in costs]}  # fmt: skip

    def _author(self) -> Author:
        if self.author is None:
            raise UserError("Records are shown here; no model is loaded that could write.")
        return self.author

    def _place(self, title: str, header: TraceHeader, ask: Ask | None) -> Shown:
        with self._lock:
            if len(self.texts) >= MOST_TEXTS:
                oldest = next((n for n, text in self.texts.items() if text.done), None)
                if oldest is None:
                    raise UserError(f"{MOST_TEXTS} texts are being written already.")
                del self.texts[oldest]
            number = max(self.texts, default=0) + 1
            shown = self.texts[number] = Shown(number, title, header, ask)
        return shown

    def _work(self) -> None:
        while True:
            shown, writing = self._waiting.get()
            try:
                with self._model:
                    for seen in writing:
                        shown.parts.append((seen.records, seen.texts, seen.words))
                        if shown.stopped:
                            break
                shown.ending = "stopped" if shown.stopped else writing.finish_reason or "length"
            except CoterieError as error:
                shown.problem = str(error)
            except Exception as error:  # one text fails, the others go on
                shown.problem = f"It could not be written: {type(error).__name__}: {error}"
                self._damaged(shown.problem)


def _begun(trace: Trace, upto: int | None) -> Start:
    tokens, prompt = trace.records["token"].tolist(), int((~trace.records["generated"]).sum())
    if upto is None:
        return Start(tokens[:prompt])
    return Start(tokens[:prompt], tokens[prompt:upto], min(upto, len(tokens)) - 1)


def _kept(earlier: np.ndarray, last: np.ndarray, experts: int) -> float:
    """As `coterie.evaluate.specialisation.saturation`, which comes with torch."""
    return float((earlier[:, :, None] == last[:, None, :]).any(1)[last < experts].mean())


def _title(ask: Ask) -> str:
    hands = [f"{verb} {' '.join(some)}" for verb, some in (("without", ask.masked),
             ("always", ask.forced)) if some]  # fmt: skip
    if ask.upto is not None:
        hands.append(f"from token {ask.upto:,} on")
    told = printable(" ".join(ask.prompt.split()))
    told = f"“{told[:20]}{'…' if told[20:] else ''}”" if told else "a text"
    return "; ".join(hands) or told + ("" if ask.step is None else f", step {ask.step:,}")


def experts(words: Sequence[str]) -> Experts:
    """Return the experts that words such as 2:5 name, by layer.

    Raises:
        UserError: a word names none.
    """
    found: dict[int, tuple[int, ...]] = {}
    for word in words:
        layer, colon, expert = word.partition(":")
        if not (colon and layer.isdecimal() and expert.isdecimal() and len(word) < 16):
            raise UserError(f"“{word[:40]}” is no expert.", hint="As LAYER:EXPERT, such as 1:5")
        found[int(layer)] = (*found.get(int(layer), ()), int(expert))
    return found


def names(some: Experts) -> list[str]:
    """Return experts as “layer:expert”."""
    return [f"{layer}:{expert}" for layer, each in sorted(some.items()) for expert in each]


def _others(
    counts: Sequence[int], masked: Experts, forced: Experts, draw: random.Random
) -> tuple[Experts, Experts] | None:
    """Return as many other experts of the same layers; None where a layer has too few."""
    found: list[dict[int, tuple[int, ...]]] = [{}, {}]
    for layer in sorted({*masked, *forced}):
        own = {*masked.get(layer, ()), *forced.get(layer, ())}
        free = [expert for expert in range(counts[layer]) if expert not in own]
        if len(free) < len(own):
            return None
        drawn = draw.sample(free, len(own))
        split = len(set(masked.get(layer, ())))
        for place, some in ((0, drawn[:split]), (1, drawn[split:])):
            if some:
                found[place][layer] = tuple(some)
    return found[0], found[1]
