"""The engine: a prompt goes in, text comes out, piece by piece as its characters become certain.

One loop serves a single stream and several samples of one prompt: the prompt is read once, its row
of the cache repeated, and every text draws from a random stream of its own and leaves the batch
when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.sampling import Sampler, SamplingSettings, TopLogprobs
from coterie.generate.session import DecodeSession, latest, position_limit
from coterie.generate.stopping import StopScanner
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.stream import StreamDecoder

FinishReason = Literal["length", "stop", "end"]
"""Why a text ended: `max_tokens` reached, a stop text met, or the model ended the document."""


class Piece(NamedTuple):
    """What one token added to the text.

    `text` holds whole characters that are certain; it is empty while a character is unfinished or
    may belong to a stop text. `logprob` and `top_logprobs` are those of the `Choice`. The last
    piece alone has a `finish_reason`.
    """

    text: str
    token: int
    logprob: float
    finish_reason: FinishReason | None = None
    top_logprobs: TopLogprobs = ()


@dataclass(frozen=True)
class Generation:
    """One generated text (without its prompt), its tokens and how it ended.

    `tokens`, `logprobs` and `top_logprobs` include the tokens of a stop text or the end-of-text
    token that ended it; `text` does not. `seconds` is wall-clock time of the whole batch, the
    prompt included.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    seconds: float
    top_logprobs: tuple[TopLogprobs, ...] = ()


class Engine:
    """Generates text with a decoder and its tokenizer; neither is changed by it.

    Args:
        decoder: the model; its training mode and the global random state stay as they are.
        tokenizer: the tokenizer it was trained with.
        notify: called with a sentence when something is done that was not asked for, such as
            cutting a prompt.

    Raises:
        UserError: the tokenizer has more tokens than the model.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        size = decoder.settings.vocab_size
        if size is not None and tokenizer.vocab_size > size:
            raise UserError(
                f"The tokenizer has {tokenizer.vocab_size:,} tokens but the model only {size:,}.",
                hint="Use the tokenizer that the model was trained with.",
            )
        self.decoder = decoder
        self.tokenizer = tokenizer
        self._notify = notify or (lambda sentence: None)

    def stream(self, prompt: str, sampling: SamplingSettings | None = None) -> Iterator[Piece]:
        """Yield the continuation of a prompt, one piece per token, as soon as it is known."""
        sampling = sampling or SamplingSettings()
        for _, piece in self._run(self.encode_prompt(prompt), sampling, 1):
            yield piece

    def generate(self, prompt: str, sampling: SamplingSettings | None = None) -> Generation:
        """Return one continuation of a prompt."""
        return self.generate_samples(prompt, 1, sampling)[0]

    def generate_samples(
        self, prompt: str, samples: int, sampling: SamplingSettings | None = None
    ) -> list[Generation]:
        """Return several continuations of one prompt, generated together as a batch.

        Sample i is the text that `generate` gives with the seed increased by i.

        Raises:
            UserError: `samples` is less than 1.
        """
        if samples < 1:
            raise UserError(f"At least one sample must be asked for, not {samples}.")
        started = time.perf_counter()
        sampling = sampling or SamplingSettings()
        tokens = self.encode_prompt(prompt)
        pieces: list[list[Piece]] = [[] for _ in range(samples)]
        for index, piece in self._run(tokens, sampling, samples):
            pieces[index].append(piece)
        seconds = time.perf_counter() - started
        return [_collect(prompt, len(tokens), each, seconds) for each in pieces]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return a prompt's tokens as the model will see them.

        An empty prompt is the end-of-text token, after which a new document begins. Tokenizers that
        have a token to begin texts with put it first. A prompt longer than the model's context
        loses its beginning, with a notice; the token that begins texts stays first.
        """
        tokens, begin = self.tokenizer.encode(prompt), self.tokenizer.begin_of_text
        if not tokens or (begin is not None and tokens[0] != begin):
            tokens = [self.tokenizer.start_of_text, *tokens]
        unknown = self.tokenizer.unknown_token
        if unknown is not None and (count := tokens.count(unknown)):
            self._notify(f"{count} characters of the prompt are unknown to this model's tokenizer.")
        limit = position_limit(self.decoder)
        if limit is not None and len(tokens) > limit:
            self._notify(
                f"The prompt has {len(tokens):,} tokens; the model sees the last {limit:,} of them."
            )
            tokens = latest(tokens, limit, begin)
        return tokens

    def _run(
        self, prompt: list[int], sampling: SamplingSettings, samples: int
    ) -> Iterator[tuple[int, Piece]]:
        """Yield (sample, piece) until every sample has ended."""
        session = DecodeSession(self.decoder, sampling.cache, self.tokenizer.begin_of_text)
        texts = [_Text(self.tokenizer, sampling, prompt, index) for index in range(samples)]
        logits = session.read(torch.tensor([prompt])).expand(samples, -1)
        session.select([0] * samples)
        live = list(range(samples))
        while live:
            for row, index in enumerate(live):
                yield index, texts[index].advance(logits[row])
            going = [row for row, index in enumerate(live) if not texts[index].finished]
            if len(going) < len(live):
                live = [live[row] for row in going]
                if live:
                    session.select(going)
            if live:
                logits = session.read(torch.tensor([[texts[index].past[-1]] for index in live]))


class _Text:
    """One text in the making: chooses its next token and says what that adds to the text."""

    def __init__(
        self, tokenizer: Tokenizer, sampling: SamplingSettings, prompt: list[int], index: int
    ) -> None:
        self.past = list(prompt)
        self.finished = False
        self._remaining = sampling.max_tokens
        self._unstoppable = sampling.min_tokens
        self._tokenizer = tokenizer
        self._sampler = Sampler.for_text(sampling, tokenizer, prompt, sampling.seed + index)
        # The token that begins a text is none of it: the first word is decoded as such.
        shown = prompt[1:] if prompt[0] == tokenizer.start_of_text else prompt
        self._characters = StreamDecoder(tokenizer, after=shown)
        self._scanner = StopScanner(sampling.stop)

    def advance(self, logits: Float[Tensor, " V"]) -> Piece:
        """Choose the next token from the model's logits."""
        # A model may have more rows than the tokenizer has tokens; those are never chosen.
        choice = self._sampler.choose(logits[: self._tokenizer.vocab_size], self.past)
        self.past.append(choice.token)
        self._remaining -= 1
        ended = choice.token in self._tokenizer.ends
        text = "" if ended else self._characters.push(choice.token)
        if self._unstoppable:  # what is written this early may hold a stop text
            self._unstoppable -= 1
        else:
            text = self._scanner.push(text)
        reason: FinishReason | None = None
        if self._scanner.stopped:
            reason = "stop"
        elif ended or self._remaining == 0:
            text += self._scanner.push(self._characters.finish()) + self._scanner.finish()
            # The last characters may have completed a stop text.
            reason = "stop" if self._scanner.stopped else "end" if ended else "length"
        self.finished = reason is not None
        return Piece(text, choice.token, choice.logprob, reason, choice.top_logprobs)


def _collect(prompt: str, prompt_tokens: int, pieces: list[Piece], seconds: float) -> Generation:
    reason = pieces[-1].finish_reason
    assert reason is not None
    return Generation(
        prompt=prompt,
        text="".join(piece.text for piece in pieces),
        tokens=tuple(piece.token for piece in pieces),
        logprobs=tuple(piece.logprob for piece in pieces),
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        seconds=seconds,
        top_logprobs=tuple(piece.top_logprobs for piece in pieces),
    )
