"""Importing a GGUF file: its settings, then every tensor, one at a time."""

from pathlib import Path

from pydantic import ValidationError

from coterie.exchange.core.loading import load_decoder
from coterie.exchange.gguf.families import FAMILIES, Family
from coterie.exchange.gguf.file import GGUFFile
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.vocabulary import read_vocabulary
from coterie.exchange.imported import ExchangeError, Imported, reasons_of
from coterie.exchange.tokenizers import fitted
from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.settings import shown
from coterie.model import DecoderSettings
from coterie.tokenizer.interface import Tokenizer


def import_file(path: Path | str) -> Imported:
    """Read a model from a GGUF file, in float32.

    Raises:
        ExchangeError: there is no such file, it is damaged, or it holds what cannot be built here.
        MissingExtraError: the `gguf` library is not installed.
    """
    file = GGUFFile(path)
    family = _family(file)
    meta = Metadata(file.values, file.shapes, file.read)
    try:
        given = family.reads(meta)
    except ValidationError as error:
        meta.problems += reasons_of(error)
        meta.finish(file.path)
        raise
    if given["layers"] > len(file.shapes):
        meta.refuse(f"block_count is {given['layers']:,}, for {len(file.shapes)} tensors in all")
    meta.finish(file.path)
    try:
        settings = DecoderSettings.model_validate(given)
    except ValidationError as error:
        reasons = "\n  ".join(reasons_of(error))
        raise ExchangeError(f"{file.path} describes no model:\n  {reasons}") from error
    notes = [*meta.notes, *_stored_types(file)]
    decoder = load_decoder(
        settings,
        family.tensor_map(settings),
        _Source(file, family, notes),
        path=file.path,
        says="its metadata",
    )
    tokenizer = _tokenizer(file, settings, notes)
    return Imported(decoder.eval(), tokenizer, family.name, file.path, tuple(notes))


def _family(file: GGUFFile) -> Family:
    name = file.values.get("general.architecture")
    if not isinstance(name, str):
        raise ExchangeError(f"{file.path} does not name its architecture.")
    if name not in FAMILIES:
        raise ExchangeError(
            f"{file.path} is of the architecture “{shown(name)}”, which is not known here; "
            f"{nearest(name, FAMILIES)}"
        )
    return FAMILIES[name]


def _stored_types(file: GGUFFile) -> list[str]:
    """Return a note on the types of the weights, where that is not float32 throughout."""
    kinds = sorted({file.kind(name) for name, shape in file.shapes.items() if len(shape) > 1})
    return [] if kinds in ([], ["F32"]) else [f"weights of {', '.join(kinds)} became float32"]


class _Source:
    """The file's tensors that are weights of the model; a note says which others are left out."""

    def __init__(self, file: GGUFFile, family: Family, notes: list[str]) -> None:
        self.read = file.read
        notices = {name: why for name in file.shapes if (why := family.notice(name)) is not None}
        notes += [f"left out: {why}" for why in sorted(set(notices.values()))]
        others = {*notices, *family.settings_in_tensors}
        self.shapes = {name: shape for name, shape in file.shapes.items() if name not in others}


def _tokenizer(file: GGUFFile, settings: DecoderSettings, notes: list[str]) -> Tokenizer | None:
    """Return the file's tokenizer; where it cannot be had, note why."""
    try:
        tokenizer = read_vocabulary(file.values)
        if tokenizer is None:
            notes.append("the file holds no tokenizer")
            return None
        return fitted(tokenizer, settings.known_vocab_size())
    except TokenizerError as error:
        notes.append(f"imported without a tokenizer: {error.message}")
        return None
