"""Exporting a decoder as a GGUF file that llama.cpp and its relatives load as it is."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from coterie.exchange.core.match import Match, match
from coterie.exchange.core.reparametrise import Reparametrised
from coterie.exchange.core.writing import ForeignTensors
from coterie.exchange.gguf.families import FAMILIES, Family
from coterie.exchange.gguf.file import library
from coterie.exchange.gguf.vocabulary import write_vocabulary
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import UserError, nearest
from coterie.foundation.files import atomic_file, own_file
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

DTYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "q8_0": ("Q8_0", 7), "bf16": ("BF16", 32)}
"""The type of matrices, and the number for “mostly of this type” in a file."""
_ALIGNMENT = 32
_BLOCK = 32  # values that share a scale in Q8_0
_LARGEST_HALF = 65504.0


def export_file(
    decoder: Decoder, tokenizer: Tokenizer | None, out: Path | str, *, dtype: str = "f16"
) -> Path:
    """Write a decoder as a GGUF file of the simplest architecture that expresses it exactly.

    Vectors and routers are always float32. A matrix whose rows are not a multiple of 32 long
    cannot be q8_0 and is f16.

    Args:
        tokenizer: written as well; None: the file holds none.
        out: the file; it must not exist.
        dtype: of matrices: f32, f16, bf16 or q8_0.

    Raises:
        ExchangeError: no architecture can hold the model, no kind of vocabulary the tokenizer, or
            a weight is beyond the precision.
        OwnedError: another process or thread writes there now.
        UserError: the file exists, or the disk is full or not writable.
        MissingExtraError: the `gguf` library is not installed.
    """
    if dtype not in DTYPES:
        raise UserError(f"There is no type “{dtype}” to export as; {nearest(dtype, DTYPES)}")
    gguf, out = library(), Path(out)
    with own_file(out, "exporting", replace=False):
        _write(gguf, decoder, tokenizer, out, dtype)
    return out


def _write(gguf: Any, decoder: Decoder, tokenizer: Tokenizer | None, out: Path, dtype: str) -> None:
    found = match(decoder, FAMILIES.values(), format="GGUF", page="docs/gguf.md")
    words = {"tokenizer.ggml.model": "no_vocab"}
    if tokenizer is not None:
        words = write_vocabulary(tokenizer, found.settings.known_vocab_size())
    tensors = _Tensors(gguf, decoder, found, dtype)
    with atomic_file(out, replace=False) as path:
        writer = gguf.GGUFWriter(path, found.family.name)
        try:
            writer.add_custom_alignment(_ALIGNMENT)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            values = {
                "general.type": "model",
                "general.name": out.stem,
                "general.file_type": DTYPES[dtype][1],
                **found.values,
                **words,
            }
            for name, value in values.items():
                _add(writer, name, value)
            tensors.announce(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name in tensors.kinds:
                writer.write_tensor_data(tensors.read(name))
            writer.flush()
        finally:
            writer.close()


def _add(writer: Any, name: str, value: Any) -> None:
    """Write one value under the type that readers expect of it."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


class _Tensors:
    """The file's tensors in the types in which they are written.

    Attributes:
        kinds: the type of each tensor, in the order of writing.
    """

    def __init__(self, gguf: Any, decoder: Decoder, found: Match[Family], dtype: str) -> None:
        self._gguf = gguf
        self._extras = found.extras
        own = Reparametrised(decoder, found.settings)
        self._weights = ForeignTensors(found.family.tensor_map(found.settings), own)
        extras = {name: tuple(extra.shape) for name, extra in found.extras.items()}
        self._shapes = extras | self._weights.shapes
        self.kinds = {name: self._kind(name, dtype) for name in self._shapes}

    def _kind(self, name: str, dtype: str) -> Any:
        shape, kind = self._shapes[name], DTYPES[dtype][0]
        if name in self._extras or name in self._weights.exact or len(shape) < 2:
            kind = "F32"
        elif kind == "Q8_0" and shape[-1] % _BLOCK:
            kind = "F16"
        return self._gguf.GGMLQuantizationType[kind]

    def announce(self, writer: Any) -> None:
        """Tell a writer the names, shapes and types of all tensors."""
        for name, kind in self.kinds.items():
            block, size = self._gguf.GGML_QUANT_SIZES[kind]
            count = math.prod(self._shapes[name]) // block * size
            numpy_type = np.dtype(np.float32)  # ignored beside `raw_dtype`
            writer.add_tensor_info(name, self._shapes[name], numpy_type, count, raw_dtype=kind)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as it is written.

        Raises:
            ExchangeError: it holds values beyond float16.
        """
        if name in self._extras:
            return self._extras[name].numpy()
        tensor = self._weights.read(name).detach().float().cpu().contiguous()
        kind = self.kinds[name]
        if kind.name == "F16" and float(tensor.abs().max()) > _LARGEST_HALF:
            raise ExchangeError(
                f"{name} holds values beyond f16: the largest is {float(tensor.abs().max()):.3g}.",
                hint="Export as bf16 or f32.",
            )
        return self._gguf.quants.quantize(tensor.numpy(), kind)
