"""Rotary positions in config.json: `rope_parameters`, or `rope_theta` with `rope_scaling`.

Both are read and both are written, so that older programs find what they know.
"""

import math
from collections.abc import Callable
from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config
from coterie.exchange.imported import shown
from coterie.foundation.errors import nearest
from coterie.model.position.scaling import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    Scaling,
    YarnScaling,
    sharpness,
)

Values = dict[str, Any]


def read_rope(
    config: Config,
    *,
    theta: float = 10000.0,
    partial: bool = False,
    layout: str = "half",
    sharpens: bool = False,
) -> Values:
    """Return the settings of rotary positions, as plain values.

    Args:
        theta: the base where it is silent.
        partial: whether the family can rotate a part of each head.
        sharpens: whether `mscale_all_dim` multiplies the family's logits.
    """
    values = _parameters(config)
    kind = values.get("rope_type", values.get("type", "default"))
    position: Values = {"kind": "rotary", "layout": layout}
    position["theta"] = _number(values, "rope_theta", config) or theta
    fraction = _number(values, "partial_rotary_factor", config)
    if fraction not in (None, 1.0) and not partial:
        config.refuse(f"partial_rotary_factor is {fraction!r}, which this architecture ignores")
    elif fraction is not None:
        position["fraction"] = fraction
    if not isinstance(kind, str) or kind not in _READ:
        config.refuse(
            f"the rotary scaling {shown(kind)} is not known here; {nearest(str(kind), _READ)}"
        )
        return position
    try:
        scaling = _READ[kind](values, config)
    except (KeyError, TypeError, ValueError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"does not hold up: {error}"
        config.refuse(f"the rotary scaling {shown(kind)} {said}")
        return position
    if isinstance(scaling, YarnScaling) and not sharpens:
        scaling = scaling.model_copy(update={"logit_factor": None})
    if scaling is not None:
        position["scaling"] = scaling.model_dump()
    return position


def _number(values: Values, name: str, config: Config) -> float | None:
    value = values.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return None if value is None else float(value)
    config.refuse(f"{name} is {shown(value)}; it must be a number")
    return None


def _parameters(config: Config) -> Values:
    """Return everything about rotary positions, under the newer names.

    As in transformers, `rope_scaling` replaces `rope_parameters`, and a value inside has precedence
    over the same name beside it, except for the original context.
    """
    values: Values = {}
    for name in ("rope_parameters", "rope_scaling"):
        given = config.raw(name)
        if given is not None and not isinstance(given, dict):
            config.refuse(f"{name} is {shown(given)}; it must be an object")
        elif given:
            if values and values != given:
                config.notes.append("rope_parameters is not read: rope_scaling says otherwise")
            values = dict(given)
    for name in ("rope_theta", "partial_rotary_factor"):
        given = config.raw(name)
        if given is not None and values.get(name) is None:
            values[name] = given
    nested = [name for name, value in values.items() if isinstance(value, dict)]
    if nested:
        config.refuse(f"rotary positions that differ by layer ({', '.join(nested)})")
        return {}
    return values


def _linear(values: Values, config: Config) -> Scaling:
    return LinearScaling(factor=float(values["factor"]))


def _dynamic(values: Values, config: Config) -> Scaling:
    context = config.whole("max_position_embeddings")
    return DynamicScaling(factor=float(values["factor"]), original_context=context)


def _llama3(values: Values, config: Config) -> Scaling:
    return Llama3Scaling(
        factor=float(values["factor"]),
        original_context=_original(values, config),
        low_frequency_factor=float(values["low_freq_factor"]),
        high_frequency_factor=float(values["high_freq_factor"]),
    )


def _yarn(values: Values, config: Config) -> Scaling:
    context = _original(values, config)
    factor = values.get("factor")
    if factor is None:
        factor = config.whole("max_position_embeddings") / context
    both = (float(values.get(name) or 0.0) for name in ("mscale", "mscale_all_dim"))
    scaling = YarnScaling.from_mscale(float(factor), context, *both)
    update: Values = {
        "beta_fast": float(values.get("beta_fast") or 32.0),
        "beta_slow": float(values.get("beta_slow") or 1.0),
        "truncate": bool(values.get("truncate", True)),
    }
    if values.get("attention_factor") is not None:
        update["attention_factor"] = float(values["attention_factor"])
    return YarnScaling.model_validate(scaling.model_dump() | update)


def _original(values: Values, config: Config) -> int:
    # The one name for which transformers prefers the value outside (Phi-3's files need it).
    given = config.raw("original_max_position_embeddings")
    given = values.get("original_max_position_embeddings") if given is None else given
    return config.whole("max_position_embeddings") if given is None else int(given)


_READ: dict[str, Callable[[Values, Config], Scaling | None]] = {
    "default": lambda values, config: None,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}


def write_rope(model: Canonical) -> Values:
    """Return what config.json says of a model's rotary positions and their context."""
    rotary, scaling = model.rotary, model.rotary.scaling
    values: Values = {"rope_type": "default", "rope_theta": rotary.theta}
    if rotary.fraction != 1.0:
        values["partial_rotary_factor"] = rotary.fraction
    context = model.settings.context
    if isinstance(scaling, DynamicScaling):
        context = scaling.original_context  # beyond it the base grows
    for kind, (settings, write) in _WRITE.items():
        if isinstance(scaling, settings):
            values |= {"rope_type": kind} | write(scaling)
    said: Values = {
        "max_position_embeddings": context,
        "rope_theta": rotary.theta,
        "rope_parameters": values,
    }
    return said if values["rope_type"] == "default" else said | {"rope_scaling": values}


def _write_yarn(scaling: YarnScaling) -> Values:
    """Return YaRN's values; DeepSeek's two `mscale` only where all logits are multiplied."""
    values: Values = {
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_context,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "attention_factor": scaling.turn_scale,
    }
    if not scaling.truncate:
        values["truncate"] = False
    if scaling.logit_scale != 1.0 and scaling.factor > 1.0:
        whole = math.sqrt(scaling.logit_scale)
        unit = sharpness(scaling.factor) - 1.0
        values["mscale"] = round((scaling.turn_scale * whole - 1.0) / unit, 12)
        values["mscale_all_dim"] = round((whole - 1.0) / unit, 12)
    return values


_WRITE: dict[str, tuple[type[Any], Callable[[Any], Values]]] = {
    "linear": (LinearScaling, lambda x: {"factor": x.factor}),
    "dynamic": (DynamicScaling, lambda x: {"factor": x.factor}),
    "llama3": (
        Llama3Scaling,
        lambda x: {
            "factor": x.factor,
            "original_max_position_embeddings": x.original_context,
            "low_freq_factor": x.low_frequency_factor,
            "high_freq_factor": x.high_frequency_factor,
        },
    ),
    "yarn": (YarnScaling, _write_yarn),
}
