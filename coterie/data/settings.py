"""The settings of a run's data: what to read, what to hold out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from coterie.data.augment import Augment
from coterie.data.clean import Clean
from coterie.data.curriculum import Curriculum
from coterie.data.mirror import mirrored
from coterie.data.mix import Mix
from coterie.data.packing import Packing, Stream
from coterie.data.reading import Delimiter, OnError
from coterie.data.sources import Sources
from coterie.data.split import SplitKind
from coterie.data.streaming import Streamed
from coterie.data.unpack import MAX_EXPANSION
from coterie.foundation.paths import PathText, UserPath
from coterie.foundation.settings import Settings


class SourceSettings(Settings):
    """A text: where it comes from, how it is read, and how it is divided."""

    source: PathText | tuple[PathText, ...] = Field(
        default="shakespeare",
        description="files, folders, patterns, git:REPOSITORY, hf:DATASET, URLs or “shakespeare”",
    )
    column: str | None = Field(
        default=None,
        description="column of tables that holds the text, or field in one: meta.text",
    )
    template: str | None = Field(
        default=None, description="several columns as one text, such as “{title}\\n\\n{text}”"
    )
    delimiter: Delimiter | None = Field(
        default=None,
        description="between the fields of CSV and TSV; by default found by looking at the file",
    )
    header: bool = Field(
        default=True,
        description="whether the first row of CSV and TSV names the columns; else they are 0, 1, …",
    )
    max_expansion: int = Field(
        default=MAX_EXPANSION,
        ge=1,
        description="how many times its size a compressed file may unpack to",
    )
    clean: tuple[Clean, ...] = Field(
        default=(), description="what documents go through before they are divided and tokenized"
    )
    valid_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of the characters held out for validation"
    )
    split: SplitKind = Field(
        default="documents", description="hold out whole documents, or the tail of the whole text"
    )
    split_seed: int = Field(
        default=0, gt=-(1 << 63), lt=1 << 63, description="of the choice of documents held out"
    )
    on_error: OnError = Field(
        default="stop", description="at a row or file that cannot be used: stop, or skip it"
    )
    processes: int | None = Field(
        default=None, ge=1, description="processes that tokenize; by default threads"
    )

    def documents(self) -> Sources:
        """Return the documents that these settings name.

        Raises:
            DataError: an input does not exist or cannot be read.
        """
        return Sources(
            self.inputs,
            self.column,
            self.on_error,
            delimiter=self.delimiter,
            header=self.header,
            max_expansion=self.max_expansion,
            template=self.template,
            clean=self.clean,
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The sources as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source


class DataSettings(SourceSettings):
    """Where the text comes from, how it is divided, and how it becomes rows."""

    sources: dict[str, SourceSettings] = Field(
        default={},
        description="texts or stores to mix, by name, instead of the one source; what an entry "
        "does not say of its reading is as it is here",
    )
    packing: Packing = Field(
        default=Stream(), description="how documents become rows of model.context tokens"
    )
    augment: tuple[Augment, ...] = Field(
        default=(), description="what the rows of a training batch go through"
    )
    curriculum: Curriculum | None = Field(
        default=None, description="rows that change their length, at as many tokens a step"
    )
    mix: Mix | None = Field(
        default=None,
        description="which source each row comes from; None: as a merged store says, else by size",
    )
    stream: Streamed = Field(
        default=None,
        description="read the source while training, without preparing it; true, or how it is read",
    )
    store: UserPath | tuple[UserPath, ...] | None = Field(
        default=None,
        description="a prepared store (a folder or URL), or several to mix, instead of the source",
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_sources(cls, values: Any) -> Any:
        """Let each source take from here what it does not say; `name: path` is enough."""
        if not isinstance(values, dict) or not isinstance(values.get("sources"), dict):
            return values
        here = {name: values[name] for name in SourceSettings.model_fields
                if name in values and name != "source"}  # fmt: skip
        whole = {
            name: each if isinstance(each, SourceSettings)
            else here | (each if isinstance(each, dict) else {"source": each})
            for name, each in values["sources"].items()
        }  # fmt: skip
        return values | {"sources": whole}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.sources and self.store is not None:
            raise ValueError("data.store and data.sources exclude each other: name stores in one")
        if self.stream is not None:
            for name in ("sources", "store", "mix", "curriculum"):
                if getattr(self, name):
                    raise ValueError(
                        f"data.stream reads one source in order: leave out data.{name}"
                    )
            if self.split == "tail":
                raise ValueError("a stream has no end to hold out: leave data.split=documents")
        if any(not name.isprintable() or not name for name in self.sources):
            raise ValueError("the name of a source must be a text that can be shown")
        return self

    @property
    def stores(self) -> tuple[Path, ...]:
        """The folders of the stores that are named; of those elsewhere, copies in the cache.

        Raises:
            UserError: one elsewhere is not there, damaged or out of reach.
        """
        if self.store is None or isinstance(self.store, Path):
            return () if self.store is None else (mirrored(self.store),)
        return tuple(map(mirrored, self.store))
