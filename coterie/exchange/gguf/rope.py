"""Rotary positions in GGUF: a base, a scaling by name, or factors for each pair as a tensor.

Llama 3's scaling has no name there: a tensor says by how much each pair is slowed down. Its four
numbers are found from the factors, and taken only if they give the same factors again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.imported import shown
from coterie.model.position.scaling import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NTKScaling,
    YarnScaling,
)
from coterie.model.position.scaling.interface import ScalingSettings, plain_frequencies
from coterie.model.position.scaling.yarn import sharpness

FACTORS = "rope_freqs.weight"
_QUOTES = "'\""
_CLOSE = 1e-4  # of factors, which a file holds in float32


def read_rope(meta: Metadata, head_dim: int, *, layout: str) -> dict[str, Any]:
    """Return the settings of rotary positions, as plain values.

    Args:
        meta: what the file says.
        head_dim: channels of a head, some or all of which are turned.
        layout: how the imported model pairs channels.
    """
    theta = meta.number("rope.freq_base", 10000.0)
    turned = meta.whole("rope.dimension_count", head_dim)
    if turned > head_dim:
        meta.refuse(
            f"rope.dimension_count is {turned}, more than the {head_dim} channels there are"
        )
        turned = head_dim
    scaling = _scaling(meta, theta, turned)
    return {
        "kind": "rotary",
        "theta": theta,
        "fraction": turned / head_dim,
        "layout": layout,
        "scaling": scaling.model_dump(),
    }


def _scaling(meta: Metadata, theta: float, turned: int) -> ScalingSettings:
    named = meta.raw("rope.scaling.type")
    old = meta.factor("rope.scale_linear")
    factor = meta.factor("rope.scaling.factor") or old or 1.0
    original = meta.whole("rope.scaling.original_context_length", meta.raw("context_length", 1))
    if meta.has(FACTORS):
        if named not in (None, "none", "linear") or factor != 1.0:
            meta.refuse(f"rope.scaling.type is {named!r} and there are factors for each pair")
        return _from_factors(meta, theta, turned, original)
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


def _from_factors(meta: Metadata, theta: float, turned: int, original: int) -> ScalingSettings:
    """Return Llama 3's scaling with these factors."""
    factors = meta.read(FACTORS).double().flatten()
    plain = plain_frequencies(theta, turned)
    if factors.shape != plain.shape:
        meta.refuse(f"{FACTORS} has {len(factors)} factors for {len(plain)} pairs of channels")
        return NoScaling()
    largest = float(factors.max())
    if bool((factors - 1).abs().max() < _CLOSE):
        return NoScaling()
    for guess in _guesses(factors, plain, largest, original):
        if bool(((_factors(guess, theta, turned) / factors) - 1).abs().max() < _CLOSE):
            return guess
    meta.refuse(f"{FACTORS} holds factors that no known scaling of rotary positions gives")
    return NoScaling()


def _guesses(
    factors: Float[Tensor, " P"], plain: Float[Tensor, " P"], largest: float, original: int
) -> list[Llama3Scaling]:
    """Return scalings that may have these factors: the published ones, then the one that fits.

    Between its bounds the share kept is linear in the turns per token: share = a · turns − b, with
    a = C / (high − low) and b = low / (high − low). Three numbers stand behind these two; high is
    taken to be 4, as usual.
    """
    factor = float(f"{largest:.6g}")
    contexts = dict.fromkeys((8192, original))
    guesses = [Llama3Scaling(factor=factor, original_context=each) for each in contexts]
    kept = (largest / factors - 1) / (largest - 1)
    between = (kept > _CLOSE) & (kept < 1 - _CLOSE)
    if int(between.sum()) >= 2:
        turns = plain[between] / (2 * math.pi)
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


def _factors(scaling: ScalingSettings, theta: float, turned: int) -> Float[Tensor, " P"]:
    """Return by how much a scaling slows each pair down."""
    length = torch.ones(1, 1, dtype=torch.float64)
    return plain_frequencies(theta, turned) / scaling.frequencies(theta, turned, length).flatten()


def write_rope(plain: Plain, channels: int) -> dict[str, Any]:
    """Return what a file says of a model's rotary positions, besides factors for each pair.

    Args:
        plain: the model.
        channels: of a head that are turned at most.
    """
    rotary = plain.rotary
    scaling = rotary.scaling
    values: dict[str, Any] = {
        "rope.dimension_count": rotary.turned(channels),
        "rope.freq_base": float(rotary.theta),
    }
    if isinstance(scaling, NTKScaling):  # the same as another base
        values["rope.freq_base"] = scaling.base(rotary.theta, rotary.turned(channels))
    elif isinstance(scaling, LinearScaling):
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    elif isinstance(scaling, YarnScaling):
        values |= _write_yarn(scaling)
    elif isinstance(scaling, Llama3Scaling):  # what the factors alone would leave to be found
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


def rope_factors(plain: Plain, channels: int) -> dict[str, Tensor]:
    """Return the tensor of factors for each pair, for a scaling that is written so."""
    rotary = plain.rotary
    if not isinstance(rotary.scaling, Llama3Scaling):
        return {}
    factors = _factors(rotary.scaling, rotary.theta, rotary.turned(channels))
    return {FACTORS: factors.to(torch.float32)}
