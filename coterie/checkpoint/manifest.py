"""What a checkpoint says of itself: the size and SHA-256 of each file, and of the manifest too.

Format 1 had no checksum of its own; its checkpoints are still read. A damaged manifest of format 2
cannot pass as one of format 1: it has entries that format 1 forbids, and state.json says 2 as well.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coterie.checkpoint.layout import FILES, FORMAT, MANIFEST, PARTED, TOKENIZER, part_of
from coterie.foundation.errors import CheckpointError
from coterie.foundation.files import write_json_atomic
from coterie.foundation.printable import printable
from coterie.foundation.records import read_json, validated

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Step = Annotated[int, Field(ge=0, le=2**53)]


class StrictRecord(BaseModel):
    """Base of a checkpoint's records: exact types, no unknown names, finite numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class FileRecord(StrictRecord):
    """One file: its size, its SHA-256, and how many tensors, or parts of them, it holds if any."""

    bytes: int = Field(ge=0)
    sha256: Digest
    tensors: int | None = Field(default=None, ge=0)


class Manifest(StrictRecord):
    """The description of a checkpoint.

    Attributes:
        step: optimizer steps done.
        run: a random name that all checkpoints of one training share; None: it was not trained.
        tokenizer: fingerprint of tokenizer.json; None: the model came without one.
        files: everything but the manifest.
    """

    format: Literal[1, 2, 3] = FORMAT
    step: Step
    run: str | None = None
    tokenizer: Digest | None = None
    files: dict[str, FileRecord]


class _First(StrictRecord):
    """A manifest of format 1."""

    format: Literal[1]
    step: Step
    files: dict[str, FileRecord]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes a folder a checkpoint, with the checksum of itself."""
    content = manifest.model_dump(mode="json")
    write_json_atomic(folder / MANIFEST, {**content, "sha256": _digest(content)})


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint and verify its own checksum.

    Raises:
        CheckpointError: it is missing, damaged or of a newer version.
    """
    try:
        content = read_json(folder / MANIFEST, CheckpointError)
    except FileNotFoundError as error:
        raise CheckpointError(f"{MANIFEST} is missing") from error
    except CheckpointError as error:
        raise CheckpointError(f"{MANIFEST} cannot be read ({error.message})") from error
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int:
        raise CheckpointError(f"{MANIFEST} cannot be read (it says no format)")
    if version > PARTED:
        raise CheckpointError(f"it has format {version}, newer than this version reads ({PARTED})")
    if version == 1:
        first = validated(_First, content, MANIFEST, CheckpointError)
        return _complete(Manifest(format=1, step=first.step, files=first.files))
    checksum = content.pop("sha256", None)
    manifest = _complete(validated(Manifest, content, MANIFEST, CheckpointError))
    if checksum != _digest(content):
        raise CheckpointError(f"{MANIFEST} does not have its own checksum")
    if (manifest.tokenizer is None) != (TOKENIZER not in manifest.files):
        raise CheckpointError(f"{MANIFEST} contradicts itself about {TOKENIZER}")
    return manifest


def tensors_digest(folder: Path, name: str) -> str:
    """Return the SHA-256 of the file `MODEL` or `OPTIMIZER`, or of those of its parts.

    Raises:
        CheckpointError: the manifest cannot be read.
    """
    files = read_manifest(folder).files
    found = {each: record.sha256 for each, record in files.items() if part_of(each) == name}
    return found[name] if name in found else _digest(found)


def _complete(manifest: Manifest) -> Manifest:
    """Return a manifest that lists what every checkpoint holds, and nothing else."""
    held = {name if manifest.format < PARTED else part_of(name): name for name in manifest.files}
    if missing := [name for name in FILES if name not in held]:
        raise CheckpointError(f"its manifest does not list {missing[0]}")
    if foreign := sorted(held[name] for name in held.keys() - {*FILES, TOKENIZER}):
        raise CheckpointError(
            f"its manifest lists {printable(foreign[0], keep='')}, which is no part of a checkpoint"
        )
    return manifest


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
