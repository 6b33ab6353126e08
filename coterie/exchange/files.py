"""Tensors in safetensors files: read one at a time, written in shards, never pickled.

Opening checks every header: a truncated file, a missing shard or a name listed twice is reported
before any tensor is read. Pickles can run any program when opened; they are always refused.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from coterie.checkpoint.tensor_file import save_tensors
from coterie.exchange.imported import ExchangeError
from coterie.foundation import records
from coterie.foundation.compiled import compiled
from coterie.foundation.printable import printable

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SHARD_BYTES = 5_000_000_000
_LISTED = 12


@dataclass(frozen=True)
class StoredTensor:
    file: Path
    shape: tuple[int, ...]
    dtype: str


class TensorFiles:
    """The tensors of a folder by name, memory-mapped."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Read the headers of safetensors files.

        Raises:
            ExchangeError: a file is damaged, or two hold the same name.
        """
        self.stored: dict[str, StoredTensor] = {}
        self._open: dict[Path, Any] = {}
        for file in files:
            handle = self._handle(file)
            for name in handle.keys():  # noqa: SIM118 - not a mapping
                if name in self.stored:
                    other = self.stored[name].file.name
                    raise ExchangeError(f"{name} is in both {other} and {file.name}.")
                part = handle.get_slice(name)
                shape = tuple(part.get_shape())
                self.stored[name] = StoredTensor(file, shape, part.get_dtype())

    def read(self, name: str) -> Tensor:
        file = self.stored[name].file
        with compiled(f"{name} of {file} cannot be read", ExchangeError):
            return self._handle(file).get_tensor(name)

    def _handle(self, file: Path) -> Any:
        if file not in self._open:
            refuse_pipe(file)
            again = "Download or copy the file again; it may have been cut off."
            with compiled(f"{file} is not a whole safetensors file", ExchangeError, hint=again):
                self._open[file] = safe_open(str(file), framework="pt")
        return self._open[file]


def open_folder(folder: Path) -> TensorFiles:
    """Open the safetensors files of a folder: those the index names, or `model.safetensors`.

    Raises:
        ExchangeError: there are none, one is missing or damaged, or there are only pickles.
    """
    index = folder / INDEX
    if index.is_file():
        return _open_index(folder, index)
    if (folder / SINGLE).is_file():
        return TensorFiles([folder / SINGLE])
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return TensorFiles(found)
    if found:
        raise ExchangeError(
            f"{folder} holds {len(found)} safetensors files, but no {INDEX} that lists them.",
            hint="Download the index as well.",
        )
    refuse_pickles(folder)
    raise ExchangeError(f"{folder} holds no weights: there is no {SINGLE} and no {INDEX}.")


def refuse_pickles(path: Path) -> None:
    """Refuse a pickled file or a folder with such files.

    Raises:
        ExchangeError: the path is one.
    """
    candidates = [path] if not path.is_dir() else sorted(path.iterdir())
    pickles = [each.name for each in candidates if each.suffix in PICKLES]
    if pickles:
        raise ExchangeError(
            f"The weights of {path} are pickled ({', '.join(pickles[:3])}). Opening a pickle can "
            "run any program that its writer put in, so Coterie never does.",
            hint="Get the model's safetensors files. If you trust the writer, convert it once, on "
            "an isolated machine, with transformers: "
            'AutoModelForCausalLM.from_pretrained("IN").save_pretrained("OUT")',
        )


def _open_index(folder: Path, index: Path) -> TensorFiles:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(map(_is_plain, listed.values())):
        raise ExchangeError(f"{index} holds no “weight_map” from names to files of this folder.")
    shards = sorted(set(listed.values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ExchangeError(
            f"{folder} lacks {len(missing)} of its {len(shards)} files: {some(missing)}.",
            hint="Download the missing files.",
        )
    files = TensorFiles(folder / name for name in shards)
    if lost := [name for name in listed if name not in files.stored]:
        raise ExchangeError(f"{index.name} lists tensors that no file holds: {some(lost)}.")
    return files


def _is_plain(name: Any) -> bool:
    """Whether a listed file is in the folder itself: an index must not lead elsewhere."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ExchangeError: it cannot be read, or holds something else.
    """
    refuse_pipe(path)
    try:
        value = records.read_json(path, ExchangeError)
    except FileNotFoundError as error:
        raise ExchangeError(f"There is no {path.name} in {path.parent}.") from error
    if not isinstance(value, dict):
        raise ExchangeError(f"{path} holds no JSON object.")
    return value


def refuse_pipe(path: Path) -> None:
    """Refuse a pipe, which would block for ever when opened, a device or a folder.

    Raises:
        ExchangeError: the path is one.
    """
    if path.exists() and not path.is_file():
        raise ExchangeError(f"{path} is not a regular file.")


def write_tensors(
    folder: Path, sizes: Mapping[str, int], read: Callable[[str], Tensor], limit: int = SHARD_BYTES
) -> None:
    """Write named tensors as one safetensors file, or as shards with an index.

    Args:
        sizes: bytes of each tensor, in the order of writing.
        read: returns a tensor; at most one shard is held in memory.
        limit: bytes of the largest shard.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        _write(folder / SINGLE, shards[0], read)
        return
    placed: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, names, read)
        placed |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": placed}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write(path: Path, names: Iterable[str], read: Callable[[str], Tensor]) -> None:
    save_tensors({name: read(name) for name in names}, path, {"format": "pt"})


def some(names: Iterable[str]) -> str:
    """Return some names for a message: the first of them, and the number of all."""
    names = [printable(name, keep="")[:200] for name in names]
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
