"""Rotary positions in GGUF: a base, a scaling by name, or a tensor with a factor for each pair.

Llama 3's scaling has no name there: a tensor holds the factor by which each pair's frequency is
divided. Its four numbers are fitted to the factors, and used only if they reproduce them.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.imported import shown
from coterie.model.position.scaling import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    ScalingSettings,
    YarnScaling,
    plain_frequencies,
    sharpness,
)

FACTORS = "rope_freqs.weight"
_QUOTES = "'\""
_CLOSE = 1e-4  # of factors, which a file holds in float32


def read_rope(meta: Metadata, head_dim: int, *, layout: str) -> dict[str, Any]:
    """Return the settings of rotary positions, as plain values.

    Args:
        head_dim: channels of a head, some or all of which are rotated.
    """
    theta = meta.number("rope.freq_base", 10000.0)
    rotated = meta.whole("rope.dimension_count", head_dim)
    if rotated > head_dim:
        meta.refuse(
            f"rope.dimension_count is {rotated}, more than the {head_dim} channels there are"
        )
        rotated = head_dim
    scaling = _scaling(meta, theta, rotated)
    return {
        "kind": "rotary",
        "theta": theta,
        "fraction": rotated / head_dim,
        "layout": layout,
        "scaling": scaling.model_dump(),
    }


def _scaling(meta: Metadata, theta: float, rotated: int) -> ScalingSettings:
    named = meta.raw("rope.scaling.type")
    old = meta.factor("rope.scale_linear")
    factor = meta.factor("rope.scaling.factor") or old or 1.0
    original = meta.whole("rope.scaling.original_context_length", meta.raw("context_length") or 1)
    if meta.has(FACTORS):
        if named not in (None, "none", "linear") or factor != 1.0:
            meta.refuse(f"rope.scaling.type is {named!r} and there are factors for each pair")
        return _from_factors(meta, theta, rotated, original)
    if named == "none" or (named in (None, "linear") and factor == 1.0):
        return NoScaling()
    if named in (None, "linear"):
        return LinearScaling(factor=factor)
    if named == "yarn":
        return _yarn(meta, factor, original)
    meta.refuse(
        f"rope.scaling.type is {shown(named)}; the rotary scaling “{shown(named).strip(_QUOTES)}” "
        "is not known here; choices: linear, none, yarn"
    )
    return NoScaling()


def _yarn(meta: Metadata, factor: float, original: int) -> YarnScaling:
    scaling = YarnScaling(
        factor=max(factor, 1.0),
        original_context=original,
        beta_fast=meta.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=meta.number("rope.scaling.yarn_beta_slow", 1.0),
    )
    share = meta.number("rope.scaling.attn_factor", 1.0)
    if share != 1.0:
        return scaling.model_copy(update={"attention_factor": share * sharpness(factor)})
    # A tenth of DeepSeek's `mscale_all_dim`, whose `mscale` is taken to be the same.
    every = round(meta.factor("rope.scaling.yarn_log_multiplier") / 0.1, 6)
    if not every:
        return scaling
    update = {"attention_factor": 1.0, "logit_factor": sharpness(factor, every) ** 2}
    return scaling.model_copy(update=update)


def _from_factors(meta: Metadata, theta: float, rotated: int, original: int) -> ScalingSettings:
    """Return Llama 3's scaling with these factors."""
    factors = meta.read(FACTORS).double().flatten()
    unscaled = plain_frequencies(theta, rotated)
    if factors.shape != unscaled.shape:
        meta.refuse(f"{FACTORS} has {len(factors)} factors for {len(unscaled)} pairs of channels")
        return NoScaling()
    largest = float(factors.max())
    if bool((factors - 1).abs().max() < _CLOSE):
        return NoScaling()
    for guess in _guesses(factors, unscaled, largest, original):
        if bool(((_factors(guess, theta, rotated) / factors) - 1).abs().max() < _CLOSE):
            return guess
    meta.refuse(f"{FACTORS} holds factors that no known scaling of rotary positions gives")
    return NoScaling()


def _guesses(
    factors: Float[Tensor, " P"], unscaled: Float[Tensor, " P"], largest: float, original: int
) -> list[Llama3Scaling]:
    """Return scalings that may have these factors: the published ones, then the fitted one.

    Between its bounds the share kept is linear in the turns per token: share = a · turns − b, with
    a = C / (high − low) and b = low / (high − low). Two equations for three numbers: high is
    assumed to be 4, as in every published model.
    """
    factor = float(f"{largest:.6g}")
    contexts = dict.fromkeys((8192, original))
    guesses = [Llama3Scaling(factor=factor, original_context=each) for each in contexts]
    kept = (largest / factors - 1) / (largest - 1)
    between = (kept > _CLOSE) & (kept < 1 - _CLOSE)
    if int(between.sum()) >= 2:
        turns = unscaled[between] / (2 * math.pi)
        slope, shift = (
            torch.linalg.lstsq(
                torch.stack((turns, -torch.ones_like(turns)), 1), kept[between, None]
            )
            .solution.flatten()
            .tolist()
        )
        spread = 4.0 / (1.0 + shift)
        context, low = round(slope * spread), round(4.0 - spread, 4)
        if context >= 1 and 0 < low < 4:
            found = {"factor": factor, "original_context": context, "low_frequency_factor": low}
            guesses.append(Llama3Scaling.model_validate(found))
    return guesses


def _factors(scaling: ScalingSettings, theta: float, rotated: int) -> Float[Tensor, " P"]:
    """Return the factor by which a scaling divides each pair's frequency."""
    length = torch.ones(1, 1, dtype=torch.float64)
    return plain_frequencies(theta, rotated) / scaling.frequencies(theta, rotated, length).flatten()


def write_rope(model: Canonical, channels: int) -> dict[str, Any]:
    """Return the values on rotary positions; `rope_factors` returns the tensor."""
    rotary = model.rotary
    scaling = rotary.scaling
    values: dict[str, Any] = {
        "rope.dimension_count": rotary.rotated(channels),
        "rope.freq_base": float(rotary.theta),
    }
    if isinstance(scaling, LinearScaling):
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    elif isinstance(scaling, YarnScaling):
        values |= _write_yarn(scaling)
    elif isinstance(scaling, Llama3Scaling):  # which the factors alone leave to be fitted
        values["rope.scaling.original_context_length"] = scaling.original_context
    return values


def _write_yarn(scaling: YarnScaling) -> dict[str, Any]:
    values = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_context,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }
    if scaling.attention_factor == 1.0 and scaling.logit_factor and scaling.factor > 1:
        every = (math.sqrt(scaling.logit_factor) - 1.0) / (0.1 * math.log(scaling.factor))
        values["rope.scaling.yarn_log_multiplier"] = 0.1 * round(every, 6)
    elif scaling.attention_factor is not None:
        values["rope.scaling.attn_factor"] = scaling.attention_factor / sharpness(scaling.factor)
    return values


def rope_factors(model: Canonical, channels: int) -> dict[str, Tensor]:
    """Return the tensor of factors [pairs], for a scaling that is written as such."""
    rotary = model.rotary
    if not isinstance(rotary.scaling, Llama3Scaling):
        return {}
    factors = _factors(rotary.scaling, rotary.theta, rotary.rotated(channels))
    return {FACTORS: factors.to(torch.float32)}
