"""How good a model is: how well it predicts any text, and whether its experts share the work."""

from coterie.evaluate.cached import cached_logprobs
from coterie.evaluate.perplexity import Perplexity, perplexity, perplexity_of
from coterie.evaluate.routing import LoadCounter, RoutingHealth
from coterie.evaluate.scoring import (
    Scoring,
    TextScore,
    framed_text,
    score_texts,
    sequence_logprobs,
    token_logprobs,
    windows_at_once,
)
from coterie.evaluate.validation import validate
