"""What a choice amounts to where nothing but the logits and a random number decides it."""

from typing import NamedTuple


class Rule(NamedTuple):
    """How the next tokens of one text are chosen, in numbers.

    Attributes:
        size: how many tokens the tokenizer has; the model may have more rows.
        temperature: 0 takes the likeliest.
        top_k: how many are kept, 0 for all.
        top_p: share of the probability that is kept.
        min_p: smallest probability that is kept, beside the largest.
        key: at which the text's random stream begins.
        made: numbers that were drawn from it.
        left: tokens that may still be written.
        banned: a token never to choose, −1 for none.
        least: numbers to draw before the text may end.
        ends: tokens that end the text.
    """

    size: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    key: int
    made: int
    left: int
    banned: int
    least: int
    ends: tuple[int, ...]


class Chosen(NamedTuple):
    """What was chosen for one row: tokens and their log-probabilities, as far as the row went.

    The token after the last good one is −1 where the logits were not finite.
    """

    tokens: list[int]
    logprobs: list[float]
