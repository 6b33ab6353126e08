"""How much memory a run needs, by formula, and a refusal before it is asked for in vain.

A process that asks for more memory than there is is killed without a word, so a run that cannot fit
is refused before anything of it is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from coterie.foundation.errors import SettingsError
from coterie.model import Decoder, DecoderSettings, parameter_roles
from coterie.model.loss import LOGITS_AT_ONCE
from coterie.train.optimizer import RoleParameter
from coterie.train.precision import Precision
from coterie.train.settings import RunSettings

# Bytes of activations per token, layer and channel in a 2-byte type, with attention scores not
# kept: Korthikanti et al. 2022, arXiv:2205.05198, equation 1 without its last term.
_ACTIVATION_BYTES = 34


def role_parameters(decoder: Decoder) -> list[RoleParameter]:
    """Return the trainable parameters of a decoder with their roles, in the decoder's order."""
    roles = parameter_roles(decoder)
    return [
        RoleParameter(name, roles[name], parameter)
        for name, parameter in decoder.named_parameters()
        if parameter.requires_grad
    ]


def shadow_parameters(model: DecoderSettings) -> list[RoleParameter]:
    """Return the parameters that a decoder would have, without memory (torch's meta device).

    Raises:
        SettingsError: they are more than any machine can address.
    """
    try:
        with torch.device("meta"):
            return role_parameters(model.build())
    except (RuntimeError, OverflowError) as error:  # torch's own words for sizes beyond 2^63
        raise SettingsError(
            f"A model of these sizes cannot be addressed: {str(error).splitlines()[0]}",
            hint="Lower model.width, model.vocab_size or the widths of its parts.",
        ) from error


def estimate_memory(
    settings: RunSettings, parameters: Sequence[RoleParameter], precision: Precision
) -> dict[str, int]:
    """Return the estimated bytes of a run by purpose.

    Args:
        settings: the run, its vocabulary's size known.
        parameters: the decoder's.
        precision: the type of its products.
    """
    train, model = settings.train, settings.model
    item_bytes = precision.dtype.itemsize
    weights = sum(p.tensor.numel() * p.tensor.element_size() for p in parameters)
    tokens = train.micro_batch_size * model.context
    # With checkpointing one block at work, and the inputs of all.
    layers = 2 if train.activation_checkpointing else model.layers
    activations = tokens * layers * model.width * _ACTIVATION_BYTES * item_bytes // 2
    # Scores and their gradient; of many rows the decoder computes a slice at a time.
    logits = min(tokens * model.known_vocab_size(), LOGITS_AT_ONCE) * (4 + item_bytes)
    counted = 0 if model.ngram is None else model.ngram.bytes
    return {
        "weights": weights + counted,
        "gradients": weights,
        **({} if train.ema is None else {"average": weights}),
        "optimizer": train.optimizer.state_bytes(parameters),
        "activations": activations + logits,
    }


def require_memory(settings: RunSettings, precision: Precision) -> None:
    """Make sure that a run can fit into its device's memory.

    Raises:
        SettingsError: its estimate is larger than all the memory there is.
    """
    there = memory_of(precision.device)
    parts = estimate_memory(settings, shadow_parameters(settings.model), precision)
    needed = sum(parts.values())
    if there is None or needed <= there:
        return
    told = ", ".join(f"{name} {size / 2**30:,.1f}" for name, size in parts.items())
    raise SettingsError(
        f"This run would need about {needed / 2**30:,.1f} GiB of memory ({told}); "
        f"{precision.device} has {there / 2**30:,.1f} GiB.",
        hint="Lower model.context or train.batch_size, raise train.gradient_accumulation, set "
        "train.activation_checkpointing=true, or make the model smaller; --dry-run shows the "
        "estimate.",
    )


def memory_of(device: torch.device) -> int | None:
    """Return all the memory of a device in bytes; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
