"""How good a model is: how well it predicts any text, and whether its experts share the work."""

from coterie.evaluate.cached import CachedScore, cached_logprobs
from coterie.evaluate.perplexity import Perplexity, perplexity, perplexity_of
from coterie.evaluate.routing import LoadCounter, RoutingHealth, mean_utilisation
from coterie.evaluate.scoring import (
    Scoring,
    TextScore,
    framed_text,
    score_text,
    score_texts,
    sequence_logprobs,
    token_logprobs,
    windows_at_once,
)
from coterie.evaluate.validation import Validation, validate

__all__ = [
    "CachedScore",
    "LoadCounter",
    "Perplexity",
    "RoutingHealth",
    "Scoring",
    "TextScore",
    "Validation",
    "cached_logprobs",
    "framed_text",
    "mean_utilisation",
    "perplexity",
    "perplexity_of",
    "score_text",
    "score_texts",
    "sequence_logprobs",
    "token_logprobs",
    "validate",
    "windows_at_once",
]
