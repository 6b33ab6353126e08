"""What every alignment method is told: where it begins, what moves, how turns are written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.foundation.settings import Settings


class Lora(Settings):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): W + s·B·A, of which B and A move."""

    rank: int | Literal["full"] = Field(
        default=8, description="rows of A; no more than W has columns, which is “full”"
    )
    scale: float = Field(default=2.0, gt=0, description="s, which others write as alpha / rank")
    parts: tuple[str, ...] = Field(
        default=(),
        description="words of the names of matrices that get adapters: attention, experts, query, "
        "router, …; none: all but routers, embedding and head",
    )


class Alignment(Settings):
    """What all methods share; each is a subclass with a `kind` and `build(run)`."""

    base: str = Field(description="the checkpoint that the run begins with")
    base_sha256: str = Field(default="", description="of its weights; filled in by the first start")
    lora: Lora | None = Field(
        default=None, description="adapters that move in place of all weights; None: all move"
    )
    template: str | None = Field(
        default=None,
        description="how conversations are written: Jinja, or play, or plain; None: the "
        "tokenizer's own, else play",
    )
    data: str = Field(default="", description="the rows: a JSONL or Parquet file")
    max_length: int | None = Field(
        default=None,
        ge=2,
        description="tokens of the rows that texts are packed into; longer texts are left out; "
        "None: the model's context",
    )
    valid_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of the rows that is held out"
    )
