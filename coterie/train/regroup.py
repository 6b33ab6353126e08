"""A step that a process among several has no memory for: all cut it alike, and take it again.

The others wait for its part of the batch, somewhere in the middle of a pass, so the pass is lost
for all of them. They leave it, join anew, divide a fresh decoder and put back what each held: as a
run goes on from a checkpoint, only that nothing is written and no step is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from coterie.batch import TokenBatch
from coterie.parallel import Parallel
from coterie.train.divided import divide
from coterie.train.divided_state import held_parts, put_back
from coterie.train.randomness import set_aside, set_torch_states, torch_states
from coterie.train.session import Session, equip, make_stepper, moves
from coterie.train.step import StepResult


def stepped(session: Session, batch: TokenBatch, settled: Callable[[], None]) -> StepResult:
    """Take the session's next step.

    Args:
        session: the run in training; decoder, stepper and processes are others where they had to
            join anew.
        batch: this process's part of the step's batch.
        settled: waits until nothing is sent any more between the steps.

    Raises:
        NoRoomError: not even one row of each process fits.
    """
    if session.together is None:  # the stepper itself cuts finer
        return session.stepper(session.progress.step, batch)
    states = torch_states()
    while True:
        try:
            return session.stepper(session.progress.step, batch)
        except Exception as error:
            said = session.ranks.crowded(error)
            if said is None:
                raise
        # Outside the handler, whose traceback holds on to what the passes had made.
        settled()
        _join_anew(session)
        session.stepper.cut_finer(batch, said)
        set_torch_states(states)


def _join_anew(session: Session) -> None:
    weights, moments = held_parts(session)
    settings, ranks, old = session.settings, session.ranks, session.stepper
    learnt = {name: getattr(old, name) for name in ("clipper", "lowered", "pieces", "pressure")}
    tell, precision, parallel = old.tell, old.precision, settings.parallel or Parallel()
    del old, session.stepper, session.decoder  # their memory is needed for what replaces them
    session.together = None
    ranks.rejoin(parallel.timeout)
    with set_aside():
        decoder = settings.model.build().to(precision.device).train()
        decoder.activation_checkpointing = settings.train.activation_checkpointing
        together = divide(settings, decoder, ranks, precision.device)
        trainable, optimizer = moves(settings, decoder, session.method, together)
        stepper = make_stepper(
            settings, decoder, optimizer, precision,
            method=session.method, trainable=trainable, together=together,
        )  # fmt: skip
        equip(stepper, settings, None, tell, ranks)
    for name, value in learnt.items():
        setattr(stepper, name, value)
    session.decoder, session.stepper, session.together = decoder, stepper, together
    put_back(session, weights, moments)
