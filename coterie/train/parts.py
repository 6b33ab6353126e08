"""The parts of a step, for whoever tells its time or memory by them.

Methods of single objects are replaced while somebody looks, so a run that nobody looks into pays
nothing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from coterie.model.blocks import Block
from coterie.model.experts import MixtureOfExpertsPart
from coterie.train.step import Stepper


def marks(stepper: Stepper, *, compiled: bool) -> Iterator[tuple[object, str, str]]:
    """Yield objects, the names of their methods, and the part that each method's time belongs to.

    What is inside a compiled decoder cannot be told apart: its time is one part.
    """
    decoder = stepper.decoder
    yield stepper.optimizer, "step", "optimizer"
    yield stepper, "_gradients", "clipping"  # what is not the objective's is the norm
    yield stepper, "_read", "clipping"
    yield stepper, "_scale_gradients", "clipping"
    if compiled:
        yield stepper, "_accumulate", "compiled decoder and loss"
        return
    yield stepper, "_accumulate", "objective"
    yield decoder, "_embed", "embedding"
    yield decoder, "_losses", "head and loss"
    yield decoder.norm, "forward", "norms"
    for module in decoder.mtp:
        yield module, "forward", "multi-token prediction"
        yield module.norm, "forward", "norms"
    for block in (each for each in decoder.modules() if isinstance(each, Block)):
        yield block, "forward", "residual stream"
        yield block.attention_norm, "forward", "norms"
        yield block.attention, "forward", "attention"
        if block.feedforward_norm is not None:
            yield block.feedforward_norm, "forward", "norms"
        feedforward = block.feedforward
        if not isinstance(feedforward, MixtureOfExpertsPart):
            yield feedforward, "forward", "dense feed-forward"
            continue
        yield feedforward, "forward", "router"
        yield feedforward, "_mix", "experts"
        yield feedforward, "_shared", "shared experts"
        yield feedforward.dispatcher, "dispatch", "dispatch and combine"
        yield feedforward.dispatcher, "combine", "dispatch and combine"


@contextlib.contextmanager
def marked(
    subject: object,
    method: str,
    part: str,
    enter: Callable[[str], contextlib.AbstractContextManager[Any]],
) -> Iterator[None]:
    """Have one object's method run in what `enter` makes of the part, inside the block."""
    original: Callable[..., Any] = getattr(subject, method)

    @functools.wraps(original)
    def within(*args: Any, **kwargs: Any) -> Any:
        with enter(part):
            return original(*args, **kwargs)

    setattr(subject, method, within)
    try:
        yield
    finally:
        delattr(subject, method)
