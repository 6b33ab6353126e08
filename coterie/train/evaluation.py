"""How well a run's model predicts what is held out of each of its sources."""

from __future__ import annotations

from coterie.data import evaluation_batches
from coterie.data.merged import held_out
from coterie.evaluate import validate
from coterie.train.events import Evaluated
from coterie.train.session import Session


def evaluated(session: Session) -> list[Evaluated]:
    """Return an evaluation of each source that holds something out, as the model is now."""
    data, context = session.settings.data, session.settings.model.context
    rows = session.settings.train.evaluation_batch_size(context)
    found = []
    for name, store in held_out(session.store).items():
        batches = evaluation_batches(store.tokens("valid"), context, rows, data.packing)
        part = validate(session.decoder, batches, autocast=session.precision.autocast)
        length = store.characters_per_token("valid")
        found.append(
            Evaluated(
                step=session.progress.step,
                split=f"valid/{name}",
                loss=part.loss,
                tokens=part.tokens,
                characters=None if length is None else round(length * part.tokens),
                seconds=part.seconds,
            )
        )
    return found
