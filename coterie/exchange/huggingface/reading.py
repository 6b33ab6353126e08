"""Importing a Hugging Face folder: configuration, then every tensor, one at a time."""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from coterie.exchange.core.loading import load_decoder
from coterie.exchange.files import TensorFiles, open_folder, read_json, refuse_pickles
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import FAMILIES, Family
from coterie.exchange.huggingface.families.tensors import MODULE_COPIES
from coterie.exchange.imported import ExchangeError, Imported, reasons_of
from coterie.exchange.tokenizers import fitted, from_huggingface
from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.settings import shown
from coterie.model import DecoderSettings
from coterie.tokenizer.interface import Tokenizer

CONFIG = "config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "Model")
_UNITS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def import_folder(
    path: Path | str, *, dtype: torch.dtype | None = torch.float32, with_tokenizer: bool = True
) -> Imported:
    """Read a Hugging Face checkpoint.

    Args:
        path: a folder with config.json and safetensors files.
        dtype: precision of the model; None: that of most tensors. Float32 holds float16 and
            bfloat16 exactly. Selection biases are always float32.

    Raises:
        TokenizerError: the folder holds a tokenizer that cannot be read.
        ExchangeError: it is not such a folder, is damaged, or describes what cannot be built here.
    """
    folder = _checked(Path(path))
    values = read_json(folder / CONFIG)
    family = _family(values, folder)
    config = Config(values, family.defaults, family.aliases)
    given = family.reads(config)
    config.finish(folder / CONFIG)
    files = open_folder(folder)
    source = _Source(files, family)
    if family.mtp and (held := source.modules(given)) != config.raw(family.mtp):
        config = Config(values | {family.mtp: held}, family.defaults, family.aliases)
        given = family.reads(config)
        config.finish(folder / CONFIG)
    if given["layers"] > len(files.stored):
        raise ExchangeError(
            f"{folder / CONFIG} describes {given['layers']:,} layers, but there are only "
            f"{len(files.stored):,} tensors."
        )
    try:
        settings = DecoderSettings.model_validate(given)
    except ValidationError as error:
        reasons = "\n  ".join(reasons_of(error))
        raise ExchangeError(f"{folder / CONFIG} describes no model:\n  {reasons}") from error
    source.settle(settings)
    units = source.common_dtype()
    decoder = load_decoder(
        settings,
        family.tensor_map(settings),
        source,
        path=folder,
        says=f"its {CONFIG}",
        dtype=units if dtype is None else dtype,
    )
    notes = [*config.notes, *source.notes]
    if dtype is not None and units != dtype:
        exact = torch.promote_types(units, dtype) == dtype
        change = "exactly" if exact else "rounded"
        notes.append(f"weights of {_name(units)} became {_name(dtype)}, {change}")
    tokenizer = _tokenizer(folder, settings.known_vocab_size()) if with_tokenizer else None
    return Imported(decoder.eval(), tokenizer, family.name, folder, tuple(notes))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checked(path: Path) -> Path:
    """Return the folder, or say what else the path is."""
    if not path.exists():
        raise ExchangeError(
            f"There is no {path}.", hint="Name a folder with config.json, or a .gguf file."
        )
    if not path.is_dir():
        refuse_pickles(path)
        raise ExchangeError(
            f"{path} is a file; a Hugging Face checkpoint is a folder.",
            hint=f"Name the folder that holds {CONFIG}, for example {path.parent}.",
        )
    if (path / CONFIG).is_file():
        return path
    if (path / "config.yaml").is_file():
        raise ExchangeError(
            f"{path} is a run or checkpoint of Coterie already; there is nothing to import.",
            hint=f'Use it as it is, for example: coterie generate {path} "Once"',
        )
    refuse_pickles(path)
    raise ExchangeError(f"There is no {CONFIG} in {path}: it is no Hugging Face checkpoint.")


def _family(values: dict[str, Any], folder: Path) -> Family:
    name = values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        said = f"the architecture “{shown(name)}”" if name else "no model_type"
        raise ExchangeError(
            f"{folder / CONFIG} names {said}, which is not known here; "
            f"{nearest(str(name), FAMILIES)}"
        )
    classes = values.get("architectures") or []
    if isinstance(classes, list) and classes and not str(classes[0]).endswith(_CAUSAL):
        raise ExchangeError(
            f"{folder / CONFIG} describes a model of the class “{shown(classes[0])}”, "
            "which is no language model.",
            hint="Only models that predict the next token (…ForCausalLM) can be imported.",
        )
    return FAMILIES[name]


class _Source:
    """The tensors of a folder under the names that the family's tensor map uses."""

    def __init__(self, files: TensorFiles, family: Family) -> None:
        self.files, self._family = files, family
        self.notes: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        bare = not any(name.startswith(family.prefix) for name in files.stored)
        self.names = {
            family.prefix + name if bare and name != family.head[0] else name: name
            for name in files.stored
        }
        for name in filter(family.is_idle, list(self.names)):
            del self.names[name]

    def modules(self, given: dict[str, Any]) -> int:
        """Return how many MTP modules are there and can be held; a note says which cannot.

        Args:
            given: the settings of the decoder; what each module repeats of the model, its
                embedding and its head, must be equal to that.
        """
        family, first = self._family, given["layers"]
        said = given.get("mtp", {"depth": 0})["depth"]
        stored = {family.layer(name) - first for name in self.names}
        held = next(depth for depth in range(said + 1) if depth == said or depth not in stored)
        why = f"config.json speaks of {said}" if max(stored, default=-1) >= held else None
        for module in range(held):
            for name in MODULE_COPIES:
                copy = f"{family.prefix}layers.{first + module}.{name}"
                main = family.head[given["head"]["tied"] or name == MODULE_COPIES[0]]
                if {copy, main} <= self.names.keys() and not self._same(copy, main):
                    held, why = 0, f"{copy} differs from {main}"
        if why is not None:
            left = "the MTP modules were" if not held else f"MTP modules after {held} were"
            self.notes.append(f"{left} left out: {why}; no logit depends on them")
        return held

    def settle(self, settings: DecoderSettings) -> None:
        """Forget the tensors that have no place in a decoder, and copies of others."""
        family, modules = self._family, settings.mtp.depth if settings.mtp else 0
        for name in list(self.names):
            layer = family.layer(name) - settings.layers
            copy = layer >= 0 and name.endswith(MODULE_COPIES)
            if family.mtp and (layer >= modules or copy):
                del self.names[name]
        head, embedding = family.head
        if settings.head.tied and head in self.names and embedding in self.names:
            self._check_tied(head, embedding)
        stored = self.files.stored
        self.shapes = {name: stored[theirs].shape for name, theirs in self.names.items()}

    def _same(self, one: str, other: str) -> bool:
        return torch.equal(self.read(one), self.read(other))

    def _check_tied(self, head: str, embedding: str) -> None:
        """Drop a tied head that is stored as well, if it equals the embedding."""
        if not self._same(head, embedding):
            raise ExchangeError(
                f"config.json ties the head to the embedding, but {head} and {embedding} differ.",
                hint="Set tie_word_embeddings to false in config.json to use both.",
            )
        del self.names[head]

    def read(self, name: str) -> Tensor:
        return self.files.read(self.names[name])

    def common_dtype(self) -> torch.dtype:
        """Return the precision of most tensors.

        Raises:
            ExchangeError: it is not floating point, as in quantised checkpoints.
        """
        found = [self.files.stored[name].dtype for name in self.names.values()]
        foreign = sorted({each for each in found if each not in _UNITS})
        if foreign:
            raise ExchangeError(
                f"The weights are stored as {', '.join(foreign)}, which is not read here; "
                f"choices: {', '.join(_UNITS)}.",
                hint="Quantised checkpoints must be brought back to bfloat16 first.",
            )
        return _UNITS[max(set(found), key=found.count)] if found else torch.float32


def _tokenizer(folder: Path, known: int) -> Tokenizer | None:
    if not any((folder / name).exists() for name in _TOKENIZERS):
        return None
    tokenizer = from_huggingface(folder)
    try:
        return fitted(tokenizer, known)
    except TokenizerError as error:
        raise ExchangeError(f"The tokenizer in {folder}: {error.message}", error.hint) from error
