"""Wide: the plain MLP under the name it has in mixtures of deep, wide and hybrid experts.

It may be packed beside them; its function is that of `mlp`.
"""

from typing import Literal

from coterie.model.feedforward.plain import PlainMLP


class WideMLP(PlainMLP):
    """Settings of the wide MLP."""

    kind: Literal["wide"] = "wide"  # pyright: ignore[reportIncompatibleVariableOverride]
