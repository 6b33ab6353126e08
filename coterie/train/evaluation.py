"""How well a run's model predicts what is held out of each of its sources."""

from __future__ import annotations

from coterie.data import evaluation_batches
from coterie.data.merged import AnyStore, held_out
from coterie.evaluate import validate
from coterie.model import Decoder
from coterie.train.events import Evaluated
from coterie.train.precision import Precision
from coterie.train.settings import RunSettings


def evaluated(
    settings: RunSettings, store: AnyStore, decoder: Decoder, precision: Precision, step: int
) -> list[Evaluated]:
    """Return an evaluation of each source that holds something out, as the model is now."""
    context = settings.model.context
    rows = settings.train.evaluation_batch_size(context)
    found = []
    for name, held in held_out(store).items():
        batches = evaluation_batches(held.tokens("valid"), context, rows, settings.data.packing)
        part = validate(decoder, batches, autocast=precision.autocast)
        length = held.characters_per_token("valid")
        found.append(
            Evaluated(
                step=step,
                split=f"valid/{name}",
                loss=part.loss,
                tokens=part.tokens,
                characters=None if length is None else round(length * part.tokens),
                seconds=part.seconds,
            )
        )
    return found
