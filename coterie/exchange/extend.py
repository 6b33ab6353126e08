"""A longer context for a trained model: the same weights under scaled positions.

Only rotary positions can be scaled (`coterie.model.position.scaling`); a model without positions
needs no scaling. A model that was extended before is extended from its original context, so factors
do not accumulate.
"""

from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from coterie.foundation.errors import SettingsError, UserError, nearest
from coterie.foundation.settings import kind_of, members
from coterie.model import Decoder, DecoderSettings
from coterie.model.position import NoPosition, RotaryPosition
from coterie.model.position.scaling import NoScaling, Scaling, ScalingSettings
from coterie.quantise import QuantisedTensor, install

METHODS = tuple(kind_of(member) for member in members(Scaling) if member is not NoScaling)


class Extension(NamedTuple):
    """An extended model.

    Attributes:
        decoder: a new one with equal weights, quantised as they were, in evaluation mode.
        original: tokens of the context before any extension.
        factor: the new context over the original one.
    """

    decoder: Decoder
    original: int
    factor: float


def extend(decoder: Decoder, context: int, method: str | None) -> Extension:
    """Return the same model with a longer context.

    Args:
        decoder: the model, which is not changed.
        context: its new length in tokens.
        method: one of `METHODS`; None where the model has no positions at all.

    Raises:
        UserError: the model's positions cannot be extended, the method is unknown or missing, or
            the context is below the original one.
    """
    settings, original = extended_settings(decoder.settings, context, method)
    parameter = next(decoder.parameters())
    other = Decoder(settings).to(device=parameter.device, dtype=parameter.dtype)
    other.load_state_dict(decoder.state_dict())
    kept = decoder.named_parameters()
    install(other, {name: each for name, each in kept if isinstance(each, QuantisedTensor)})
    return Extension(other.eval(), original, context / original)


def extended_settings(
    settings: DecoderSettings, context: int, method: str | None
) -> tuple[DecoderSettings, int]:
    """Return the settings of the extended model, and the context before any extension.

    Raises:
        UserError: see `extend`.
    """
    position = settings.position
    if isinstance(position, NoPosition):
        original = settings.context
        if method is not None:
            raise UserError(
                f"The model has no positions for “{method}” to act on.",
                hint="Leave the method out; only the context changes.",
            )
        _require_longer(context, original)
        return settings.model_copy(update={"context": context}), original
    if not isinstance(position, RotaryPosition):
        raise UserError(
            f"Positions of kind “{position.kind}” cannot be extended: none were learned "
            "beyond the last one.",
            hint="Train a model with rotary positions, or train this one anew with a larger "
            f"context: model.context={context}",
        )
    if method not in METHODS:
        said = "No method was named" if method is None else f"There is no method “{method}”"
        raise SettingsError(f"{said}; {nearest(method or '', METHODS)}")
    original = position.scaling.original(settings.context)
    _require_longer(context, original)
    scaling = _scaling(position.scaling, method, original, context)
    changed = {"context": context, "position": position.model_copy(update={"scaling": scaling})}
    try:
        return DecoderSettings.model_validate(settings.model_dump() | changed), original
    except ValidationError as error:
        raise SettingsError(
            f"The model cannot be extended so: {error.errors()[0]['msg']}"
        ) from error


def _require_longer(context: int, original: int) -> None:
    if context < original:
        raise UserError(
            f"A context of {context:,} tokens is shorter than the original one of {original:,}; "
            "extending only lengthens.",
            hint="A model reads shorter texts without it.",
        )


def _scaling(present: ScalingSettings, method: str, original: int, context: int) -> ScalingSettings:
    """Return the scaling from the original context; the same kind keeps its other settings."""
    if context == original:
        return NoScaling()
    if kind_of(type(present)) != method:
        member = next(each for each in members(Scaling) if kind_of(each) == method)
        sizes = {"factor": 1.0, "original_context": original}
        values = {name: sizes[name] for name in sizes if name in member.model_fields}
        scalings: TypeAdapter[ScalingSettings] = TypeAdapter(Scaling)
        present = scalings.validate_python({"kind": method, **values})
    return present.extended(original, context)
