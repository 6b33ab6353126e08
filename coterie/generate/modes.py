"""Evaluation for as long as something is computed, and everything as it was afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

import torch
from torch import nn

from coterie.generate.threads import shared_cores

_MODE = attrgetter("training")


@contextmanager
def evaluation(
    decoder: nn.Module, modules: Sequence[nn.Module] = (), *, divided: bool = False
) -> Iterator[None]:
    """Switch dropout and gradients off inside the block; afterwards every part is as it was.

    Args:
        modules: all its parts, where somebody has them at hand: finding them takes longer than
            asking each of them.
        divided: whether processes gather weights in it, which training shall use afterwards.
    """
    shared_cores().look()
    modules = modules or tuple(decoder.modules())
    training = [each for each in modules if each.training] if any(map(_MODE, modules)) else []
    for module in training:
        module.training = False
    try:
        with torch.no_grad() if divided else torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
