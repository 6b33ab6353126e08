"""Augmentations: transforms of the rows of a training batch.

A member has `build(tokenizer, draws)`, which returns an `Augmentation`. Evaluation has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from coterie.data.augment.bpe_dropout import BPEDropout
from coterie.data.augment.case import Case
from coterie.data.augment.draws import draws_of
from coterie.data.augment.fim import FillInTheMiddle
from coterie.data.augment.interface import Augmentation
from coterie.data.augment.jitter import Jitter
from coterie.data.augment.lines import Reverse, Shuffle
from coterie.data.augment.noise import Mask, Replacement, SpanMask, TokenDropout
from coterie.data.augment.pairs import Pairs
from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import union
from coterie.tokenizer.interface import Tokenizer

Augment = Annotated[
    TokenDropout
    | Mask
    | SpanMask
    | Replacement
    | BPEDropout
    | Case
    | Pairs
    | Jitter
    | Shuffle
    | Reverse
    | FillInTheMiddle,
    union(
        TokenDropout,
        Mask,
        SpanMask,
        Replacement,
        BPEDropout,
        Case,
        Pairs,
        Jitter,
        Shuffle,
        Reverse,
        FillInTheMiddle,
    ),
]


def augmentations(
    settings: Sequence[Augment], tokenizer: Tokenizer, seed: int
) -> tuple[Augmentation, ...]:
    """Return what the settings describe, each with random numbers of its own.

    Raises:
        SettingsError: the tokenizer lacks what they need, or their order makes no sense.
    """
    before = ""
    for each in settings:
        if before and getattr(each, "reorders", False):
            raise SettingsError(
                f"data.augment: {each.kind} puts the text into another order and predicts that; "
                f"after {before} it would predict what was put in.",
                hint=f"Name {each.kind} first.",
            )
        before = before or (each.kind if getattr(each, "replaces", False) else "")
    wanted = [(getattr(each, "seed", 0), getattr(each, "streams", 1)) for each in settings]
    drawing = zip(settings, draws_of(seed, wanted), strict=True)
    return tuple(each.build(tokenizer, draws) for each, draws in drawing)
