"""A GGUF file: its values, and its tensors, dequantised to float32 one at a time.

Quantised blocks are dequantised by the `gguf` library, whose authors define them.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.exchange.files import PICKLES, refuse_pickles
from coterie.exchange.gguf.header import TensorPlace, read_header
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import require
from coterie.foundation.printable import printable

_ALIGNMENT = "general.alignment"
_LARGEST_ALIGNMENT = 1 << 20


def library() -> ModuleType:
    """Return the `gguf` library.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("gguf.quants", "gguf")
    return require("gguf", "gguf")


class GGUFFile:
    """An opened file.

    Attributes:
        path: of the file.
        values: by name.
        shapes: of the tensors, by name.
    """

    def __init__(self, path: Path | str) -> None:
        """Read the header and check that every tensor is within the file.

        Raises:
            ExchangeError: there is no such file, or it cannot be read.
            MissingExtraError: the `gguf` library is not installed.
        """
        self.path = Path(path)
        if self.path.suffix in PICKLES and self.path.is_file():
            refuse_pickles(self.path)
        if not self.path.is_file():
            raise ExchangeError(f"There is no file {self.path}.")
        self._library = library()
        try:
            header = read_header(self.path)
        except OSError as error:
            raise ExchangeError(f"{self.path} cannot be read: {error.strerror}.") from error
        self.values: Mapping[str, Any] = header.values
        self._tensors = header.tensors
        self.shapes = {name: place.shape for name, place in header.tensors.items()}
        self._check_split()
        self._begin = _aligned(header.end, self._alignment())
        self._content = np.memmap(self.path, mode="r")
        self._places = {name: self._check(name, place) for name, place in self._tensors.items()}
        self._check_apart()

    def kind(self, name: str) -> str:
        """Return the name of a tensor's type, such as Q8_0."""
        return self._kind(name).name

    def read(self, name: str) -> Tensor:
        """Return a tensor in float32.

        Raises:
            ExchangeError: its type cannot be dequantised, or it holds values that are not finite.
        """
        kind = self._kind(name)
        first, size = self._places[name]
        raw = self._content[first : first + size]
        shape = self.shapes[name]
        try:
            rows = raw.reshape(-1, size * shape[-1] // int(np.prod(shape)))
            with np.errstate(all="ignore"):  # non-finite values are refused below
                values = self._library.quants.dequantize(rows, kind)
        except NotImplementedError as error:
            raise ExchangeError(
                f"{self.path}: {name} is of the type {kind.name}, which cannot be opened.",
                hint="Get the model in another quantisation, for example Q8_0 or Q4_K_M.",
            ) from error
        tensor = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)
        if not bool(tensor.isfinite().all()):
            raise ExchangeError(f"{self.path} is damaged: {name} holds values that are no numbers.")
        return tensor

    def _kind(self, name: str) -> Any:
        number = self._tensors[name].kind
        try:
            return self._library.GGMLQuantizationType(number)
        except ValueError as error:
            raise ExchangeError(
                f"{self.path}: {name} is of the unknown type {number}.",
                hint="A newer “gguf” may know it: pip install --upgrade gguf",
            ) from error

    def _check_split(self) -> None:
        count = self.values.get("split.count", 1)
        if type(count) is int and count > 1:
            raise ExchangeError(
                f"{self.path} is one of {count} pieces of a model.",
                hint="Join them first: llama-gguf-split --merge FIRST_PIECE WHOLE",
            )

    def _alignment(self) -> int:
        alignment = self.values.get(_ALIGNMENT, 32)
        power = type(alignment) is int and alignment > 0 and not alignment & (alignment - 1)
        if not power or alignment > _LARGEST_ALIGNMENT:
            raise ExchangeError(
                f"{self.path} is damaged: {_ALIGNMENT} is {_shown(alignment)}, no power of two up "
                f"to {_LARGEST_ALIGNMENT:,}."
            )
        return alignment

    def _check(self, name: str, place: TensorPlace) -> tuple[int, int]:
        """Return a tensor's first byte and its number of bytes."""
        kind = self._kind(name)
        block, block_bytes = self._library.GGML_QUANT_SIZES[kind]
        elements = int(np.prod([int(side) for side in place.shape], dtype=object))
        if elements == 0 or place.shape[-1] % block:
            raise ExchangeError(
                f"{self.path} is damaged: {name} has the shape {list(place.shape)}, which "
                f"{kind.name} cannot have."
            )
        size = elements // block * block_bytes
        if place.offset % self._alignment():
            raise ExchangeError(
                f"{self.path} is damaged: {name} begins at {place.offset:,}, which is no multiple "
                f"of {self._alignment()}."
            )
        first = self._begin + place.offset
        if first + size > self._content.shape[0]:
            raise ExchangeError(
                f"{self.path} is cut off: {name} should end at byte {first + size:,}, the file "
                f"ends at {self._content.shape[0]:,}.",
                hint="Download or copy the file again.",
            )
        return first, size

    def _check_apart(self) -> None:
        ordered = sorted((first, size, name) for name, (first, size) in self._places.items())
        for (first, size, name), (second, _, other) in itertools.pairwise(ordered):
            if first + size > second:
                raise ExchangeError(f"{self.path} is damaged: {name} and {other} overlap.")


def _shown(value: Any) -> str:
    return printable(repr(value), keep="")[:60]


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
