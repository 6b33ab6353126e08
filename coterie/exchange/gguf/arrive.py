"""From a GGUF file to a decoder: what the file says, then every tensor, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from coterie.exchange.files import some
from coterie.exchange.gguf.families import FAMILIES, Family
from coterie.exchange.gguf.file import GGUFFile
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.vocabulary import read_vocabulary
from coterie.exchange.huggingface.rules import Layout, Rule
from coterie.exchange.imported import ExchangeError, Imported, reasons_of
from coterie.exchange.tokenizers import fitted
from coterie.foundation.errors import TokenizerError, nearest
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.interface import Tokenizer


def import_file(path: Path | str) -> Imported:
    """Read a model from a GGUF file, in float32.

    Args:
        path: the file.

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
    notes = [*meta.notes, *_origin(file)]
    decoder = _load(settings, family, file, notes)
    tokenizer = _tokenizer(file, settings, notes)
    return Imported(decoder.eval(), tokenizer, family.name, file.path, tuple(notes))


def _family(file: GGUFFile) -> Family:
    name = file.values.get("general.architecture")
    if not isinstance(name, str):
        raise ExchangeError(f"{file.path} does not name its architecture.")
    if name not in FAMILIES:
        raise ExchangeError(
            f"{file.path} is of the architecture “{name}”, which is not known here; "
            f"{nearest(name, FAMILIES)}"
        )
    return FAMILIES[name]


def _origin(file: GGUFFile) -> list[str]:
    """Return in which types the weights were stored, where that is not float32 throughout."""
    kinds = sorted({file.kind(name) for name, shape in file.shapes.items() if len(shape) > 1})
    return [] if kinds in ([], ["F32"]) else [f"weights of {', '.join(kinds)} became float32"]


def _load(settings: DecoderSettings, family: Family, file: GGUFFile, notes: list[str]) -> Decoder:
    """Return a decoder with the file's weights.

    Raises:
        ExchangeError: tensors are missing, left over or of another shape; all of them are named.
    """
    with torch.device("meta"):
        hollow = Decoder(settings).state_dict()
    chosen = [(rule, _layout(rule, file)) for rule in family.rules(settings)]
    covered = {name for rule, _ in chosen for name in rule.own}
    assert covered == set(hollow), f"no rule covers {set(hollow) ^ covered}"
    problems = list(_problems(hollow, chosen, family, file, notes))
    if problems:
        raise ExchangeError(
            f"The weights of {file.path} do not fit what it says:\n  " + "\n  ".join(problems)
        )
    decoder = Decoder(settings)
    own = decoder.state_dict()
    with torch.no_grad():
        for rule, layout in chosen:
            shapes = [own[name].shape for name in rule.own]
            found = layout.to_own([file.read(name) for name in layout.names], shapes)
            for name, tensor in zip(rule.own, found, strict=True):
                own[name].copy_(tensor)
    return decoder


def _layout(rule: Rule, file: GGUFFile) -> Layout:
    """Return the layout of which most tensors are there."""
    return max(rule.layouts, key=lambda x: sum(n in file.shapes for n in x.names) / len(x.names))


def _problems(
    hollow: dict[str, Tensor],
    chosen: list[tuple[Rule, Layout]],
    family: Family,
    file: GGUFFile,
    notes: list[str],
) -> Iterator[str]:
    """Yield sentences on what is missing, left over or of another shape; note what is left out."""
    wanted = {name for _, layout in chosen for name in layout.names}
    left_over = set(file.shapes) - wanted - set(family.settings_in_tensors)
    notices = {name: why for name in left_over if (why := family.notice(name)) is not None}
    notes += [f"left out: {why}" for why in sorted(set(notices.values()))]
    if missing := sorted(wanted - set(file.shapes)):
        yield f"{len(missing)} tensors are missing: {some(missing)}"
    if unexpected := sorted(left_over - set(notices)):
        yield f"{len(unexpected)} tensors are unexpected: {some(unexpected)}"
    for rule, layout in chosen:
        expected = layout.to_foreign([hollow[name] for name in rule.own])
        for name, tensor in zip(layout.names, expected, strict=True):
            shape = file.shapes.get(name, tuple(tensor.shape))
            if shape != tuple(tensor.shape):
                yield f"{name} has shape {list(shape)} instead of {list(tensor.shape)}"


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
