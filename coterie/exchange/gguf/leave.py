"""From a decoder to a GGUF file that llama.cpp and its kin load as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from coterie.exchange.gguf.file import library
from coterie.exchange.gguf.fit import Fit, fitting
from coterie.exchange.gguf.pieces import write_vocabulary
from coterie.exchange.huggingface.lift import Lifted
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import UserError, nearest
from coterie.foundation.files import atomic_file, own_file
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

DTYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "q8_0": ("Q8_0", 7), "bf16": ("BF16", 32)}
"""The type of matrices and the number that stands for “mostly of this type”."""
_ALIGNMENT = 32
_BLOCK = 32  # values that share a scale in Q8_0
_LARGEST_HALF = 65504.0


def export_file(
    decoder: Decoder, tokenizer: Tokenizer | None, out: Path | str, *, dtype: str = "f16"
) -> Path:
    """Write a decoder as a GGUF file of the simplest architecture that expresses it exactly.

    Vectors and routers are always float32. Rows of a matrix that are no multiple of 32 long cannot
    be q8_0 and are f16.

    Args:
        decoder: the model.
        tokenizer: goes along; None: the file holds none.
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
    fit = fitting(decoder)
    said = {} if tokenizer is None else write_vocabulary(tokenizer, fit.settings.known_vocab_size())
    tensors = _Tensors(gguf, decoder, fit, dtype)
    with atomic_file(out, replace=False) as path:
        writer = gguf.GGUFWriter(path, fit.family.name)
        try:
            writer.add_custom_alignment(_ALIGNMENT)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            values = {
                "general.type": "model",
                "general.name": out.stem,
                "general.file_type": DTYPES[dtype][1],
                **{name: value for name, value in fit.values.items() if "architecture" not in name},
                **(said or {"tokenizer.ggml.model": "no_vocab"}),
            }
            for name, value in values.items():
                _add(writer, name, value)
            tensors.announce(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name in tensors.plan:
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


class _Planned(NamedTuple):
    """A tensor to be written: which rule makes it, its place there, its shape and its type."""

    rule: int
    place: int
    shape: tuple[int, ...]
    kind: Any


class _Tensors:
    """The file's tensors by name, made when they are asked for, in the order of `plan`."""

    def __init__(self, gguf: Any, decoder: Decoder, fit: Fit, dtype: str) -> None:
        self._gguf = gguf
        self._lifted = Lifted(decoder, fit.settings)
        self._rules = list(fit.family.rules(fit.settings))
        self._extras = fit.extras
        self._made: tuple[int, list[Tensor]] = (-2, [])
        self.plan: dict[str, _Planned] = {}
        for name, extra in fit.extras.items():
            self.plan[name] = _Planned(-1, 0, tuple(extra.shape), gguf.GGMLQuantizationType.F32)
        for number, rule in enumerate(self._rules):
            hollow = [torch.empty(self._lifted.shapes[own], device="meta") for own in rule.own]
            layout = rule.layouts[0]
            for place, tensor in enumerate(layout.to_foreign(hollow)):
                kind = "F32" if rule.exact or tensor.ndim < 2 else DTYPES[dtype][0]
                if kind == "Q8_0" and tensor.shape[-1] % _BLOCK:
                    kind = "F16"
                self.plan[layout.names[place]] = _Planned(
                    number, place, tuple(tensor.shape), gguf.GGMLQuantizationType[kind]
                )

    def announce(self, writer: Any) -> None:
        """Tell a writer the names, shapes and types of all tensors."""
        for name, planned in self.plan.items():
            block, size = self._gguf.GGML_QUANT_SIZES[planned.kind]
            count = int(np.prod(planned.shape)) // block * size
            kind = np.dtype(np.float32)  # only the type given by name counts
            writer.add_tensor_info(name, planned.shape, kind, count, raw_dtype=planned.kind)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as it is written."""
        planned = self.plan[name]
        if planned.rule < 0:
            return self._extras[name].numpy()
        if self._made[0] != planned.rule:
            rule = self._rules[planned.rule]
            own = [self._lifted.read(each).detach().float().cpu() for each in rule.own]
            self._made = (planned.rule, rule.layouts[0].to_foreign(own))
        tensor = self._made[1][planned.place].contiguous()
        if planned.kind.name == "F16" and float(tensor.abs().max()) > _LARGEST_HALF:
            raise ExchangeError(
                f"{name} holds values beyond f16: the largest is {float(tensor.abs().max()):.3g}.",
                hint="Export as bf16 or f32.",
            )
        return self._gguf.quants.quantize(tensor.numpy(), planned.kind)
