"""How well a model predicts any text: the mean log-probability of its tokens.

Perplexities of models with different tokenizers cannot be compared, since their tokens differ.
Nats per character and bits per byte can: they spread the same total over the same text.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from coterie.evaluate.scoring import DISJOINT, Scoring, TextScore, score_text
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer


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
    decoder: Decoder, tokenizer: Tokenizer, text: str, scoring: Scoring = DISJOINT
) -> Perplexity:
    """Measure a model on one text; see `score_texts` for arguments and errors."""
    return perplexity_of([score_text(decoder, tokenizer, text, scoring)], tokenizer)
