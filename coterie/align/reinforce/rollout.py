"""Texts are written: several on each prompt, together, by the decoder as it is.

They go through the session of the engine, so that any sampling, constraint and cache serves; each
draws from a random stream of its own, so that a text depends on the weights, its prompt and its
seed alone. Beside the tokens the routers' choices are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.align.reinforce.routes import RecordingPass
from coterie.foundation.errors import SettingsError
from coterie.generate.engine import Engine
from coterie.generate.request import NO_TOKEN, Request
from coterie.generate.sampling import SamplingSettings
from coterie.generate.text import Text
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

_NOT_FIRST = 1 << 20  # between the seeds of prompts


@dataclass
class Written:
    """A text that was written.

    Attributes:
        prompt: what it goes on from, as tokens.
        tokens: what was written, what ended it included.
        logprobs: of each, as told when it was drawn.
        text: what a reader sees.
        ended: whether it came to an end by itself.
        routes: of prompt and tokens but the last, which was not read, [T, L, k].
    """

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    text: str
    ended: bool
    routes: Int[Tensor, "T L k"] | None


def require_room(prompt: int, most: int, context: int) -> None:
    """Make sure that a prompt of so many tokens and the longest text fit into the context.

    Raises:
        SettingsError: they do not.
    """
    if prompt + most > context:
        raise SettingsError(
            f"A prompt of {prompt} tokens and a text of {most} are longer than the model's context "
            f"of {context}.",
            hint="Lower align.prompt_lines or align.rollout.max_tokens, or shorten the prompts.",
        )


class Writer:
    """Writes texts with a decoder.

    Args:
        sampling: how tokens are drawn; its seed is not used.
        at_once: texts that are written together.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, sampling: SamplingSettings, at_once: int
    ) -> None:
        self._tokenizer, self._sampling, self._at_once = tokenizer, sampling, at_once
        self._record = RecordingPass(decoder)
        self._engine = Engine(decoder, tokenizer, passes=[self._record])
        self._context = decoder.settings.context

    def write(
        self,
        prompts: Sequence[str],
        number: int,
        seed: int,
        max_tokens: int | None = None,
        lines: int | None = None,
    ) -> list[Written]:
        """Return so many texts on each prompt, those of one prompt beside each other.

        Args:
            number: of texts on each prompt.
            seed: decides, with a text's place, its random stream.
            max_tokens: the most of a text; None: as the sampling says.
            lines: after how many a text ends; None: as the sampling says.

        Raises:
            SettingsError: prompt and text are longer than the model's context.
        """
        most = max_tokens or self._sampling.max_tokens
        sampling = self._sampling.model_copy(update={"max_tokens": most})
        found: list[Written] = []
        each = max(self._at_once // number, 1)
        for start in range(0, len(prompts), each):
            some = [self._engine.encode_prompt(text) for text in prompts[start : start + each]]
            require_room(max(map(len, some)), most, self._context)
            first = seed * _NOT_FIRST + start * number
            found += self._together(some, number, first, sampling, lines)
        return found

    def _together(
        self,
        prompts: list[list[int]],
        number: int,
        seed: int,
        sampling: SamplingSettings,
        lines: int | None,
    ) -> list[Written]:
        session = self._engine.new_session(sampling)
        logits = None
        for piece in session.begin(prompts):
            logits = session.read(piece)
        assert logits is not None
        read = self._record.take()
        rows = [row for row in range(len(prompts)) for _ in range(number)]
        texts = [
            _Writing(
                Text(
                    Request(prompts[row], sampling, (seed + place) % (1 << 63)),
                    prompts[row],
                    self._tokenizer,
                ),
                [] if read is None else [read[row, : len(prompts[row])]],
                lines,
            )
            for place, row in enumerate(rows)
        ]
        running = texts
        while True:
            for each, row in zip(running, rows, strict=True):
                each.advance(logits[row])
            staying = [place for place, each in enumerate(running) if not each.done]
            if not staying:
                return [each.written() for each in texts]
            kept = [rows[place] for place in staying]
            if kept != list(range(logits.shape[0])):
                session.select(kept)
            running = [running[place] for place in staying]
            rows = list(range(len(running)))
            logits = session.read([[each.text.past[-1]] for each in running])
            read = self._record.take()
            if read is not None:
                for each, own in zip(running, read, strict=True):
                    each.routes.append(own)


class _Writing:
    """A text in the making, and where its tokens were sent."""

    def __init__(self, text: Text, routes: list[Tensor], lines: int | None) -> None:
        self.text, self.routes, self._lines = text, routes, lines
        self.done = self._ended = False
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._shown = ""

    def advance(self, logits: Tensor) -> None:
        """Choose the next token.

        Raises:
            CoterieError: none can be chosen, for the model's output is not finite, say.
        """
        piece = self.text.advance(logits)
        if piece.error is not None:
            raise piece.error
        assert piece.token != NO_TOKEN
        self._tokens.append(piece.token)
        self._logprobs.append(piece.logprob)
        self._shown += piece.text
        self._ended = piece.finish_reason in ("stop", "end")
        self.done = piece.finish_reason is not None
        if self._lines is not None and not self.done:
            self.done = self._ended = self._shown.count("\n") >= self._lines

    def written(self) -> Written:
        routes = torch.cat(self.routes).clone() if self.routes else None
        return Written(
            self.text.prompt, self._tokens, self._logprobs, self._shown, self._ended, routes
        )
