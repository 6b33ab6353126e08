"""The words `cache=…` of `coterie evaluate`: what a cache costs, beside the model without it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from coterie.api.progress import count_bar
from coterie.cli.words import Words
from coterie.evaluate import Scoring, cached_logprobs
from coterie.foundation.errors import UserError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.foundation.settings import Settings
from coterie.generate.cache import CacheSettings, FullCacheSettings
from coterie.model import Decoder

_HINT = "For example: coterie evaluate latest cache=quantised cache.bits=4"
MOST_TOKENS = 16_384
"""Tokens of the validation split that are read through a cache: piece by piece takes long."""


class _Asked(Settings):
    cache: CacheSettings = Field(default=FullCacheSettings(), description="to be measured")


def asked_cache(flag: str | None, said: Words) -> CacheSettings | None:
    """Return the cache that a command names, by a flag or as settings; None: it names none.

    Raises:
        SettingsError: there is no such cache, or it has no such setting.
        UserError: something else is to be set.
    """
    words = said.overrides if flag is None else (f"cache={flag}", *said.overrides)
    other = [each for each in words if each.partition("=")[0].partition(".")[0] != "cache"]
    if other or said.overlays:
        raise UserError(
            "`coterie evaluate` takes flags, and of settings cache=… and weights=… alone.",
            hint=_HINT,
        )
    return load_settings(_Asked, [overrides_layer(words)], _HINT).settings.cache if words else None


def cache_figures(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    cache: CacheSettings,
    scoring: Scoring,
    plain: Sequence[Tensor],
) -> dict[str, Any]:
    """Return what reading through a cache changes.

    Args:
        decoder: the model.
        sequences: the tokens, the one from which each text begins included.
        cache: what is kept.
        scoring: how long texts are cut.
        plain: the log-probabilities of the same tokens without a cache.
    """
    with count_bar("Reading through the cache", sum(map(len, sequences))) as advance:
        found = cached_logprobs(decoder, sequences, cache, scoring, advance)
    full = cached_logprobs(decoder, [sequences[0][: found.tokens + 1]], FullCacheSettings())
    through, without = (_perplexity(each) for each in (found.logprobs, plain))
    return {
        "cache": cache.model_dump(mode="json"),
        "perplexity_through_cache": through,
        "perplexity_without": without,
        "perplexity_change": f"{through / without - 1:+.3%}",
        "cache_bytes_per_token": round(found.bytes_per_token),
        "full_cache_bytes_per_token": round(full.bytes_per_token),
        "cached_tokens": found.tokens,
    }


def _perplexity(logprobs: Sequence[Tensor]) -> float:
    return math.exp(-float(torch.cat(list(logprobs)).double().mean()))
