"""How many texts a beam search follows, and how it ranks and ends them."""

from typing import Literal

from pydantic import Field, model_validator

from coterie.foundation.settings import Settings


class BeamSettings(Settings):
    """A search for the likeliest texts."""

    width: int = Field(default=4, ge=1, le=1024, description="how many texts are followed at once")
    length_penalty: float = Field(
        default=1.0,
        ge=-10,
        le=10,
        description="a text's log-probability is divided by its length to this power",
    )
    early_stopping: bool | Literal["never"] = Field(
        default=False,
        description="end once as many texts have ended; false: once better ones are unlikely; "
        "never: once they are impossible",
    )
    groups: int = Field(
        default=1, ge=1, description="groups that avoid each other's tokens; they share the width"
    )
    diversity_penalty: float = Field(
        default=0.5,
        ge=0,
        le=100,
        description="nats that a token loses for each earlier group's beam that takes it just now",
    )

    @model_validator(mode="after")
    def _groups_share_the_width(self) -> "BeamSettings":
        if self.width % self.groups:
            raise ValueError(f"width={self.width} cannot be shared by groups={self.groups}")
        return self
