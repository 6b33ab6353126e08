"""How well a model predicts any text: the log-probability of every token, and their means.

Perplexities of models with different tokenizers cannot be compared, since their tokens differ.
Nats per character and bits per byte can: they spread the same total over the same text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.evaluate.routing import LoadCounter
from coterie.evaluate.windows import Window, windows
from coterie.foundation.errors import DataError
from coterie.generate.session import evaluation
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

_LOGITS_AT_ONCE = 1 << 26
"""The most logits one call may make (256 MiB in float32)."""


@dataclass(frozen=True)
class TextScore:
    """A text, its tokens, and the log-probability of each in nats, given those before it."""

    text: str
    tokens: list[int]
    logprobs: Float[Tensor, " T"]


@dataclass(frozen=True)
class Perplexity:
    """A model's surprise at a text or several; every token counts, the first included.

    `unknown_tokens` counts what the tokenizer could not say: with any, the figures flatter the
    model.
    """

    nats: float
    tokens: int
    characters: int
    bytes: int
    unknown_tokens: int = 0

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-probability of a token, in nats."""
        return self.nats / self.tokens

    @property
    def nats_per_character(self) -> float:
        """The same total per character of text."""
        return self.nats / self.characters

    @property
    def bits_per_byte(self) -> float:
        """The same total in bits per UTF-8 byte of text."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp(nats per token): the number of equally likely tokens that would surprise as much."""
        return math.exp(min(self.nats_per_token, 700.0))


def score_text(
    decoder: Decoder,
    tokenizer: Tokenizer,
    text: str,
    stride: int | None = None,
    loads: LoadCounter | None = None,
) -> TextScore:
    """Score every token of a text.

    The text begins after the token that begins texts, or else after an end-of-text token, as a
    document does in training, so that its first token is scored too. The token that a tokenizer
    puts after every text is scored as well.

    Args:
        decoder: the model, in any mode, which it keeps.
        tokenizer: the one it was trained with.
        text: any text.
        stride: tokens between windows; see `coterie.evaluate.windows`.
        loads: counts where the tokens were routed; those that windows share count in each.

    Raises:
        DataError: the text is empty.
        UserError: the stride lies outside 1 … context.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise DataError("There is no text to evaluate: it is empty.")
    framed = tokenizer.framed(tokens)
    if tokenizer.begin_of_text is None:
        framed = [tokenizer.start_of_text, *framed]
    if len(framed) < 2:
        raise DataError("There is no text to evaluate but the token that begins it.")
    logprobs = token_logprobs(decoder, framed, stride, loads)
    return TextScore(text, framed[1:], logprobs)


def perplexity_of(scores: Iterable[TextScore], tokenizer: Tokenizer) -> Perplexity:
    """Return the perplexity of all scored texts together."""
    nats, tokens, characters, size, unknown = 0.0, 0, 0, 0, 0
    for score in scores:
        nats -= float(score.logprobs.double().sum())
        tokens += len(score.tokens)
        characters += len(score.text)
        size += len(score.text.encode("utf-8"))
        unknown += score.tokens.count(
            -1 if tokenizer.unknown_token is None else tokenizer.unknown_token
        )
    return Perplexity(nats, tokens, characters, size, unknown)


def perplexity(
    decoder: Decoder, tokenizer: Tokenizer, text: str, stride: int | None = None
) -> Perplexity:
    """Measure a model on one text; see `score_text` for arguments and errors."""
    return perplexity_of([score_text(decoder, tokenizer, text, stride)], tokenizer)


def token_logprobs(
    decoder: Decoder,
    tokens: Sequence[int],
    stride: int | None = None,
    loads: LoadCounter | None = None,
) -> Float[Tensor, " T"]:
    """Return the log-probability, in nats, of every token but the first, given those before it.

    Each is conditioned on what its window holds of the past: see `coterie.evaluate.windows`. The
    result lies on the CPU.

    Raises:
        UserError: the stride lies outside 1 … context.
    """
    device = next(decoder.parameters()).device
    sequence = torch.tensor(tokens, dtype=torch.long)
    cuts = windows(len(tokens), decoder.settings.context, stride)
    found = [torch.empty(0)]
    for batch in _batches(cuts, windows_at_once(decoder)):
        inputs = torch.stack([sequence[each.start : each.stop] for each in batch])
        targets = torch.stack([sequence[each.start + 1 : each.stop + 1] for each in batch])
        with evaluation(decoder):
            output = decoder(inputs.to(device))
            chosen = output.logits.gather(-1, targets.to(device)[..., None])[..., 0]
            scores = (chosen - output.logits.logsumexp(-1)).cpu()
        if loads is not None:
            loads.add(output.router_stats)
        for window, row in zip(batch, scores, strict=True):
            found.append(row[window.scored - window.start - 1 :])
    return torch.cat(found)


def windows_at_once(decoder: Decoder) -> int:
    """Return how many windows of full context may be read in one call: at least 1, at most 16."""
    logits = decoder.settings.context * (decoder.settings.vocab_size or 1)
    return min(max(_LOGITS_AT_ONCE // logits, 1), 16)


def _batches(cuts: list[Window], rows: int) -> Iterator[list[Window]]:
    """Yield windows of equal length together, at most `rows` at once."""
    for _, equal in groupby(cuts, key=lambda each: each.stop - each.start):
        group = list(equal)
        for start in range(0, len(group), rows):
            yield group[start : start + rows]
