"""The settings of a run's data: what to read, what to hold out."""

from __future__ import annotations

from pydantic import Field

from coterie.data.augment import Augment
from coterie.data.clean import Clean
from coterie.data.curriculum import Curriculum
from coterie.data.mix import Mix
from coterie.data.packing import Packing, Stream
from coterie.data.reading import Delimiter, OnError
from coterie.data.sources import Sources
from coterie.data.split import SplitKind
from coterie.data.unpack import MAX_EXPANSION
from coterie.foundation.paths import PathText, UserPath
from coterie.foundation.settings import Settings


class DataSettings(Settings):
    """Where the text comes from and how it is divided."""

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
    processes: int | None = Field(
        default=None, ge=1, description="processes that tokenize; by default threads"
    )
    store: UserPath | None = Field(
        default=None, description="a prepared token store, used instead of the source"
    )

    def sources(self) -> Sources:
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
