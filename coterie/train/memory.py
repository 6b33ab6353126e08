"""How much memory a run needs, by formula, and a refusal before it is asked for in vain.

A process that asks for more memory than there is is killed without a word, so a run that cannot fit
is refused before anything of it is made.
"""

from __future__ import annotations

import os

import torch

from coterie.foundation.errors import SettingsError
from coterie.model import Decoder, DecoderSettings
from coterie.model.loss import LOGITS_AT_ONCE
from coterie.train.optimizer import RoleParameter
from coterie.train.precision import Precision
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings
from coterie.train.step_memory import step_memory

# Bytes of activations of a plain layer per token and channel in a 2-byte type, without attention's
# scores: Korthikanti et al. 2022, arXiv:2205.05198, equation 1 without its last term.
_ACTIVATION_BYTES = 34


def shadow_parameters(model: DecoderSettings) -> list[RoleParameter]:
    """Return the parameters that a decoder would have, without memory (torch's meta device).

    Raises:
        SettingsError: they are more than any machine can address.
    """
    return role_parameters(shadow_decoder(model))


def shadow_decoder(model: DecoderSettings) -> Decoder:
    """Return a decoder without memory (torch's meta device).

    Raises:
        SettingsError: its parameters are more than any machine can address.
    """
    try:
        with torch.device("meta"):
            return model.build()
    except (RuntimeError, OverflowError) as error:  # torch's own words for sizes beyond 2^63
        raise SettingsError(
            f"A model of these sizes cannot be addressed: {str(error).splitlines()[0]}",
            hint="Lower model.width, model.vocab_size or the widths of its parts.",
        ) from error


def estimate_memory(settings: RunSettings, precision: Precision) -> dict[str, int]:
    """Return the estimated bytes of a run by part, at the moment when most are held.

    Weights, gradients and the optimizer's state follow from the parameters; the rest is counted on
    a step without memory (`train/step_memory.py`). Saving in the background copies the first and
    the last of these into host memory, and counts where that is the run's own.

    Args:
        settings: the run, its vocabulary's size known.
        precision: the type of its products.
    """
    parts = step_memory(settings, precision)
    ngram = settings.model.ngram
    parts["weights"] += 0 if ngram is None else ngram.bytes
    if settings.train.save_in_background and precision.device.type == "cpu":
        parts["saving"] = sum(parts.get(each, 0) for each in ("weights", "optimizer", "average"))
    return dict(sorted(parts.items(), key=lambda each: -each[1]))


def _at_most(settings: RunSettings, precision: Precision) -> int:
    """Return bytes that a run of these sizes does not reach, without counting it."""
    train, model = settings.train, settings.model
    held = sum(p.tensor.numel() for p in shadow_parameters(model)) * 4
    tokens = train.micro_batch_size * settings.row_length
    activations = tokens * model.layers * model.width * _ACTIVATION_BYTES
    logits = min(tokens * model.known_vocab_size(), LOGITS_AT_ONCE) * 4
    counted = 0 if model.ngram is None else model.ngram.bytes
    return 8 * (held + activations + logits) + counted


def require_memory(settings: RunSettings, precision: Precision) -> None:
    """Make sure that a run can fit into its device's memory.

    Raises:
        SettingsError: its estimate is larger than all the memory there is.
    """
    there = memory_of(precision.device)
    if there is None or _at_most(settings, precision) <= there:
        return
    parts = estimate_memory(settings, precision)
    needed = sum(parts.values())
    if needed <= there:
        return
    told = ", ".join(f"{name} {size / 2**30:,.1f}" for name, size in parts.items())
    raise SettingsError(
        f"This run would need about {needed / 2**30:,.1f} GiB of memory ({told}); "
        f"{precision.device} has {there / 2**30:,.1f} GiB.",
        hint="Lower model.context or train.batch_size, raise train.gradient_accumulation, set "
        "train.activation_checkpointing=true, or make the model smaller; `coterie plan` finds "
        "settings that fit.",
    )


def memory_of(device: torch.device) -> int | None:
    """Return all the memory of a device in bytes; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
