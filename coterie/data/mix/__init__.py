"""Mixers: from which source each row of a batch comes.

A member has `build(sources, seed)`, given what there is to mix, and returns a `Mixer`. Those here
are ratios, kept by one `order`.
"""

from __future__ import annotations

from typing import Annotated

from coterie.data.mix.equal import Equal
from coterie.data.mix.proportional import Proportional
from coterie.data.mix.protocol import Share, Source, part_of
from coterie.data.mix.temperature import Temperature
from coterie.data.mix.weighted import Weighted
from coterie.foundation.settings import union

Mix = Annotated[
    Proportional | Equal | Weighted | Temperature,
    union(
        Proportional, Equal, Weighted, Temperature,
        renamed={"single": {"kind": "proportional"}},
    ),
]  # fmt: skip
