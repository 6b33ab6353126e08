"""A text that is written while somebody looks into the model: one stream of records.

Every view of a model at work reads this stream, as it comes or from a trace, and nothing else. The
decoder is called as it is (compiled passes know no hooks), so a watched text is the unwatched one
of `compute=torch`, up to rounding where two tokens are nearly as likely.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.traces import ATTENDED, NO_EXPERT, TraceHeader
from coterie.generate.engine import Engine
from coterie.generate.request import FinishReason, Request
from coterie.generate.sampling import SamplingSettings
from coterie.generate.sampling.candidates import Candidates, probabilities
from coterie.generate.session import DecodeSession
from coterie.generate.text import Text
from coterie.model import routed_layers
from coterie.model.observe import LayerSeen, Steering, Watcher, steered
from coterie.tokenizer.stream import pieces_of

UNTOUCHED = Steering()


@dataclass(frozen=True)
class Seen:
    """Some tokens of a text, in their order.

    Attributes:
        records: one of each, of the header's `record_type`.
        texts: what each added to the text.
        words: texts of tokens that the records name, those that were not named before.
    """

    records: np.ndarray
    texts: list[str]
    words: Mapping[int, str]


class WatchedText:
    """A text to be written and watched; iterate over it once.

    Args:
        prompt: what it goes on from, a text or its tokens.
        sampling: how it is drawn.
        written: tokens after the prompt that were drawn before, by the same settings; what follows
            is drawn by the random numbers that would have followed.
        steering: experts that are masked or forced.
        steered_from: the first token whose reading they are masked or forced in; what is read anew
            in a new stretch, or for want of a cache, is read so as a whole.
        candidates, lens: how many next tokens are kept, of the whole model and after each layer.

    Attributes:
        header: what the records are of.
        finish_reason: why the text ended, once it has.

    Raises:
        UserError: the model cannot be steered so, or beams are asked for.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: str | Sequence[int],
        sampling: SamplingSettings,
        *,
        name: str = "",
        step: int = 0,
        written: Sequence[int] = (),
        steering: Steering = UNTOUCHED,
        steered_from: int = 0,
        candidates: int = 5,
        lens: int = 3,
    ) -> None:
        if sampling.beams is not None:
            raise UserError("A search with beams writes no text token by token: leave beams out.")
        steering.check(engine.decoder)
        self.finish_reason: FinishReason | None = None
        self._engine, self._steering, self._steered_from = engine, steering, steered_from
        left = max(sampling.max_tokens - len(written), 1)
        self._sampling = sampling.model_copy(update={"compute": "torch", "max_tokens": left})
        prompt_tokens = engine.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        request = Request(prompt_tokens, self._sampling)
        self._text = Text(request, prompt_tokens, engine.tokenizer)
        self._text.replay(list(written))
        self._text.look_at_choices(self._chosen_from)
        self._places: list[dict[str, Any]] = [{}]  # what was known before each unread token
        self._known: set[int] = set()
        self.header = TraceHeader(
            model=name, step=step, vocabulary=engine.tokenizer.vocab_size,
            experts=_experts(engine), candidates=min(candidates, engine.tokenizer.vocab_size),
            experts_per_token=max(
                (each.router.selector.experts_per_token
                 for each in routed_layers(engine.decoder).values()), default=0,
            ),
            lens=min(lens, engine.tokenizer.vocab_size),
            masked=_names(steering.masked), forced=_names(steering.forced),
            sampling=sampling.model_dump(mode="json"),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Seen]:
        engine, text = self._engine, self._text
        session = engine.new_session(self._sampling)
        texts, at = pieces_of(engine.tokenizer, text.past), 0
        unread = list(text.past)
        watcher = Watcher(engine.decoder, lens=self.header.lens > 0)
        with ExitStack() as looking:
            looking.enter_context(watcher)
            hand = looking.enter_context(ExitStack())
            while not text.finished:
                logits = torch.empty(0)
                for piece in self._pieces(session, unread, at):
                    if at == self._steered_from:
                        hand.enter_context(steered(engine.decoder, self._steering))
                    logits = session.read_last([piece], len(piece))[0]
                    self._expect(logits, text.past[at + 1 : at + 1 + len(piece)])
                    places, self._places = self._places[: len(piece)], self._places[len(piece) :]
                    yield self._seen(piece, at, places, watcher.take(len(piece)), texts)
                    at, texts = at + len(piece), texts[len(piece) :]
                found = text.advance(logits[-1])
                if found.error is not None:
                    raise found.error
                unread, texts = [found.token], [found.text]
                self.finish_reason = found.finish_reason
        yield self._seen(unread, at, self._places, None, texts)

    def _pieces(self, session: DecodeSession, unread: list[int], at: int) -> Iterator[list[int]]:
        """Yield what is read at once, cut where the hand reaches in."""
        prompt = len(self._text.prompt)
        cuts = {min(max(place - at, 0), len(unread)) for place in (self._steered_from, prompt)}
        for start, stop in pairwise(sorted({0, *cuts, len(unread)})):
            part = unread[start:stop]
            while part and at + start >= prompt and session.room is not None:
                size = max(session.room, 1)  # stretches end where they did token by token
                yield from session.pieces(part[:size])
                part = part[size:]
            if part:
                yield from session.pieces(part)

    def _expect(self, logits: Float[Tensor, "T V"], following: Sequence[int]) -> None:
        """Take down what the model expected in the places of tokens that are known already."""
        size = self._engine.tokenizer.vocab_size
        for row, token in zip(logits[:, :size].detach(), following, strict=False):
            logs = row.float().log_softmax(-1).cpu().numpy()
            self._places.append({**self._before(logs), "surprise": -float(logs[token])})

    def _chosen_from(self, raw: np.ndarray, candidates: Candidates, token: int) -> None:
        """Take down what a token was chosen from: before and after constraints and truncation."""
        count = self.header.candidates
        shares = probabilities(candidates.logits)
        best = np.argsort(-shares, kind="stable")[:count]
        possible = [place for place in best.tolist() if shares[place] > 0]
        self._places = [{
            **self._before(raw), "surprise": -float(raw[token]),
            "allowed": int((candidates.logits > -np.inf).sum()),
            "after": _padded([candidates.token(place) for place in possible], count, 0),
            "after_p": _padded([float(shares[place]) for place in possible], count, np.nan),
        }]  # fmt: skip

    def _before(self, logs: np.ndarray) -> dict[str, Any]:
        best = np.argsort(-logs, kind="stable")[: self.header.candidates]
        chances = np.exp(logs)
        entropy = -float((chances * np.where(chances > 0, logs, 0.0)).sum())
        return {"before": best, "before_p": chances[best], "entropy": entropy}

    def _seen(
        self,
        tokens: Sequence[int],
        at: int,
        places: list[dict[str, Any]],
        layers: tuple[LayerSeen, ...] | None,
        texts: list[str],
    ) -> Seen:
        """Return the records of some tokens; `layers`: None where they were not read."""
        records = _blank(self.header, len(tokens))
        records["token"], records["read"] = tokens, layers is not None
        records["position"] = np.arange(at, at + len(tokens))
        records["generated"] = records["position"] >= len(self._text.prompt)
        for record, place in zip(records, places, strict=True):
            for name, value in place.items():
                record[name] = value
        for layer in layers or ():
            _fill(records, layer, self.header)
        named = {*records["token"].tolist(), *records["lens"][records["lens_p"] > 0].tolist()}
        for name in ("before", "after"):
            named.update(records[name][records[f"{name}_p"] > 0].tolist())
        words = {token: self._engine.tokenizer.decode([token]) for token in named - self._known}
        self._known |= named
        return Seen(records, texts[: len(tokens)], words)


def _experts(engine: Engine) -> tuple[int, ...]:
    layers = routed_layers(engine.decoder)
    return tuple(
        layers[layer].num_experts if layer in layers else 0
        for layer in range(engine.decoder.settings.layers)
    )


def _names(experts: Mapping[int, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(f"{layer}:{each}" for layer, some in sorted(experts.items()) for each in some)


def _padded(values: list[Any], count: int, filling: Any) -> list[Any]:
    return values + [filling] * (count - len(values))


def _blank(header: TraceHeader, count: int) -> np.ndarray:
    """Return records in which nothing is known."""
    records = np.zeros(count, header.record_type())
    for name in records.dtype.names or ():
        if records.dtype[name].base.kind == "f":
            records[name] = np.nan
    records["experts"] = NO_EXPERT
    return records


def _fill(records: np.ndarray, seen: LayerSeen, header: TraceHeader) -> None:
    """Write what one layer did into the records."""
    at, routing = seen.layer, seen.routing
    for name in ("residual", "attention", "feedforward"):
        records[name][:, at] = getattr(seen, name).cpu().numpy()
    if routing is not None:
        per_token, experts = routing.indices.shape[1], header.experts[at]
        indices = routing.indices.cpu().numpy()
        none = indices == experts
        records["experts"][:, at, :per_token] = np.where(none, NO_EXPERT, indices)
        records["weights"][:, at, :per_token] = routing.gates.cpu().numpy()
        records["scores"][:, at, :experts] = routing.scores.cpu().numpy()
        records["shares"][:, at, :experts] = routing.shares.cpu().numpy()
        records["margin"][:, at] = routing.margin.cpu().numpy()
    for row, weights in enumerate(seen.attended or ()):
        chances = weights.cpu().numpy().astype(np.float64)
        some = chances[chances > 0]
        records["attention_entropy"][row, at] = -(some @ np.log(some))
        best = weights.topk(min(ATTENDED, len(chances))).indices.cpu().numpy()
        # As a distance: caches that forget number the keys that they keep anew.
        records["attended"][row, at, : len(best)] = len(chances) - 1 - best
        records["attended_p"][row, at, : len(best)] = chances[best]
    if seen.lens is not None and header.lens:
        likely = seen.lens.float().softmax(-1).topk(header.lens)
        records["lens"][:, at] = likely.indices.cpu().numpy()
        records["lens_p"][:, at] = likely.values.cpu().numpy()
