"""How well a run's model predicts what is held out of each of its sources."""

from __future__ import annotations

from coterie.data import evaluation_batches
from coterie.data.merged import AnyStore, held_out
from coterie.evaluate import validate
from coterie.model import Decoder
from coterie.parallel.together import Together
from coterie.train.events import Evaluated
from coterie.train.precision import Precision
from coterie.train.settings import RunSettings


def evaluated(
    settings: RunSettings, store: AnyStore, decoder: Decoder, precision: Precision, step: int,
    together: Together | None = None,
) -> list[Evaluated]:  # fmt: skip
    """Return an evaluation of each source that holds something out, as the model is now.

    Processes that are `together` read different batches and add up what they found.
    """
    context = settings.model.context
    rows = settings.train.evaluation_batch_size(context)
    found = []
    share = (0, 1) if together is None else together.share
    for name, held in held_out(store).items():
        packing = settings.data.packing
        batches = evaluation_batches(held.tokens("valid"), context, rows, packing, share)
        part = validate(decoder, batches, autocast=precision.autocast, together=together)
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
