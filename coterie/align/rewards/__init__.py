"""Rewards: a closed union of settings, each of which builds what judges texts.

One reward is one file: what it means, its unit and its range. What it knows of verse, plays and
words comes from `language`.
"""

from typing import Annotated

from coterie.align.rewards.copying import Copying
from coterie.align.rewards.distribution import Archaic, LongWords
from coterie.align.rewards.fluency import Fluency
from coterie.align.rewards.function import Function
from coterie.align.rewards.interface import Corpus, RewardError, RewardSettings, Sample
from coterie.align.rewards.judge import Judge, Scores
from coterie.align.rewards.length import Length
from coterie.align.rewards.metre import Metre
from coterie.align.rewards.pattern import Pattern
from coterie.align.rewards.repetition import Repetition
from coterie.align.rewards.rhyme import Rhyme
from coterie.align.rewards.structure import Structure
from coterie.align.rewards.syntax import Syntax
from coterie.align.rewards.trained import Trained
from coterie.foundation.settings import union

Reward = Annotated[
    Metre | Rhyme | Structure | Archaic | LongWords | Fluency | Repetition | Length | Copying
    | Syntax | Pattern | Trained | Function,
    union(Metre, Rhyme, Structure, Archaic, LongWords, Fluency, Repetition, Length, Copying,
          Syntax, Pattern, Trained, Function),
]  # fmt: skip

__all__ = ["Corpus", "Judge", "Reward", "RewardError", "RewardSettings", "Sample", "Scores"]
