"""Supervised fine-tuning: what the assistant says in rows of conversations is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coterie.align.encoding import encode, parts_of
from coterie.align.method import AlignMethod
from coterie.align.packing import Unit
from coterie.align.rows import each_row, messages_of
from coterie.align.settings import Alignment
from coterie.foundation.runs import RunDirectory
from coterie.train.method import Tell

_SAMPLES = 2


class Sft(Alignment):
    """Supervised fine-tuning on conversations."""

    kind: Literal["sft"] = "sft"
    loss: Literal["completions", "all"] = Field(
        default="completions", description="which turns are learnt: the assistant's, or all"
    )

    def build(self, run: RunDirectory | None) -> SftMethod:
        """Return the method."""
        return SftMethod(self, run)


class SftMethod(AlignMethod):
    """Cross-entropy of what the assistant says; see `train.objective` for the loss itself."""

    alignment: Sft

    def units(self, tell: Tell) -> list[Unit]:
        """Return each row's conversation."""
        self._asked: list[str] = []

        def read(values: dict[str, Any]) -> Unit:
            parts = parts_of(self.template, messages_of(values))
            if len(self._asked) < _SAMPLES:
                self._asked.append(parts[0].text)
            everything = self.alignment.loss == "all"
            return (encode(self.tokenizer, parts, everything=everything, ends=self.template.ends),)

        return each_row(Path(self.alignment.data), read)

    def prompts(self) -> Sequence[str]:
        """Return the questions of the first rows."""
        return self._asked
