"""What is asked of the engine, and what it gives back piece by piece."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from coterie.generate.constraints import Constraint
from coterie.generate.constraints.report import Report
from coterie.generate.sampling import SamplingSettings, TopLogprobs

FinishReason = Literal["length", "stop", "end", "error"]
"""Why a text ended: `max_tokens` reached, a stop text met, the model ended the document, or an
error that concerned this text alone."""

NO_TOKEN = -1


@dataclass(frozen=True, eq=False)
class Request:
    """One text to be written.

    Attributes:
        prompt: what it goes on from: a text, or tokens as the model will see them.
        sampling: how its tokens are drawn, when it ends, and which cache it is read through.
        seed: of its random stream; None: that of `sampling`.
        constraints: objects of one's own that limit it, applied after those that `sampling` names;
            they serve this text alone.
    """

    prompt: str | Sequence[int]
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int | None = None
    constraints: tuple[Constraint, ...] = ()


class Piece(NamedTuple):
    """What one token added to the text.

    `text` holds whole characters that are certain; it is empty while a character is unfinished or
    may belong to a stop text. `logprob` and `top_logprobs` are those of the `Choice`. The last
    piece alone has a `finish_reason`; where that is `error`, the piece has the `error` and no token
    (`NO_TOKEN`). `drafted` tells that the token had been guessed (`speculation`). The last piece
    has the `scores` of all candidates (`best_of`), None for those that failed, and the `report`.
    """

    text: str
    token: int
    logprob: float
    finish_reason: FinishReason | None = None
    top_logprobs: TopLogprobs = ()
    error: Exception | None = None
    drafted: bool = False
    scores: tuple[float | None, ...] = ()
    report: Report | None = None

    @classmethod
    def failed(cls, error: Exception) -> "Piece":
        """Return the last piece of a text that cannot go on."""
        return cls("", NO_TOKEN, float("nan"), "error", error=error)


@dataclass(frozen=True)
class Generation:
    """One generated text (without its prompt), its tokens and how it ended.

    `tokens`, `logprobs` and `top_logprobs` include the tokens of a stop text or the end-of-text
    token that ended it; `text` does not. `seconds` is wall-clock time of the whole batch, the
    prompt included. `error` is what ended it where `finish_reason` is `error`. `score` is what a
    search with beams ranked it by, or the best of `scores`, those of all candidates (`best_of`).
    `drafted` tokens had been guessed (`speculation`), so that the decoder was called so many times
    less often. `report` tells what constraints did, if asked for.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    seconds: float
    top_logprobs: tuple[TopLogprobs, ...] = ()
    error: Exception | None = None
    score: float | None = None
    drafted: int = 0
    scores: tuple[float | None, ...] = ()
    report: Report | None = None

    @classmethod
    def collected(
        cls, prompt: str, prompt_tokens: int, pieces: list[Piece], seconds: float
    ) -> "Generation":
        """Return what the pieces of one text add up to."""
        reason = pieces[-1].finish_reason
        assert reason is not None
        written = [piece for piece in pieces if piece.token != NO_TOKEN]
        return Generation(
            prompt=prompt,
            text="".join(piece.text for piece in pieces),
            tokens=tuple(piece.token for piece in written),
            logprobs=tuple(piece.logprob for piece in written),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            seconds=seconds,
            top_logprobs=tuple(piece.top_logprobs for piece in written),
            error=pieces[-1].error,
            drafted=sum(piece.drafted for piece in written),
            score=max((each for each in pieces[-1].scores if each is not None), default=None),
            scores=pieces[-1].scores,
            report=pieces[-1].report,
        )
