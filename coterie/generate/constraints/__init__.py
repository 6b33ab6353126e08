"""Constraints: what a text may go on with, decided token by token; a closed union, open by path.

A constraint changes the logits of the next token, is told which token was chosen, and can take
tokens back, so that searches and guesses that are dropped leave no trace in it. Constraints of one
text are applied in the order in which they are listed, before penalties and temperature.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.generate.constraints.forbid import Forbid
from coterie.generate.constraints.grammars import Choices, Grammar, JsonSchema, Regex
from coterie.generate.constraints.interface import (
    Constraint,
    ConstraintSettings,
    build_all,
    follow,
    mask_all,
)
from coterie.generate.constraints.structure import Structure
from coterie.generate.constraints.verse import Verse

ConstraintUnion = Annotated[
    Forbid | Structure | Verse | Grammar | Regex | JsonSchema | Choices,
    union(Forbid, Structure, Verse, Grammar, Regex, JsonSchema, Choices),
]
