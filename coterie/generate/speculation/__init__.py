"""Speculation: tokens that are guessed, read in one call and kept as far as they were right.

A drafter guesses; each position's token is then chosen from the model's logits exactly as without
guesses, by all settings and constraints and the text's own random number for that position. The
guess is right if that token is the guessed one; at the first that is not, the rest is taken back.
For a guess that is certain of itself this is the rejection sampling of Leviathan et al. 2023
(arXiv:2211.17192): it is accepted with the probability that the model gives it. And since no random
number is spent on guesses, a seed's text is the same with and without them.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.generate.speculation.controller import Controller
from coterie.generate.speculation.interface import Drafter, Read
from coterie.generate.speculation.lookup import LookupSpeculation
from coterie.generate.speculation.mtp import MTPSpeculation
from coterie.generate.speculation.none import NoSpeculation

Speculation = Annotated[
    NoSpeculation | LookupSpeculation | MTPSpeculation,
    union(NoSpeculation, LookupSpeculation, MTPSpeculation),
]
