"""Whether a checkpoint is undamaged and consistent.

First its bytes: the manifest's own checksum, then every file's size and SHA-256. Then its sense,
which a manifest signed anew cannot feign: the step in three places, states that generators accept,
settings that describe the model whose tensors lie there, moments that fit its parameters, a
tokenizer that fits its vocabulary. A changed weight that was signed anew cannot be found.

Whoever only uses the model does not read the optimizer's file, two thirds of a checkpoint's bytes.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.checkpoint.hashing import begin, digest_of
from coterie.checkpoint.layout import (
    CONFIG,
    MODEL,
    OPTIMIZER,
    STATE,
    TOKENIZER,
    named_step,
    part_of,
    stored,
)
from coterie.checkpoint.manifest import Manifest, read_manifest
from coterie.checkpoint.state import read_state
from coterie.checkpoint.tensor_file import tensor_names
from coterie.checkpoint.tensors import check_model, check_optimizer, hollow_model
from coterie.foundation.errors import CheckpointError, CoterieError
from coterie.foundation.layers import read_settings_file
from coterie.foundation.printable import printable
from coterie.foundation.records import validated
from coterie.model import DecoderSettings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer


def find_problem(path: Path | str, *, finite: bool = True, moments: bool = True) -> str | None:
    """Return what is wrong with a checkpoint, or None if it is sound.

    Args:
        finite: whether weights that are not finite count as wrong.
        moments: whether the optimizer's file is read; else its size and its header are looked at,
            which is enough for whoever does not train on.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
        read = [name for name in manifest.files if moments or part_of(name) != OPTIMIZER]
        _check_sizes(path, manifest)
        with _hashed(path, manifest, read):
            _check_sense(path, manifest, finite, moments)
    except CoterieError as error:
        return error.message.replace(f"{path}/", "").rstrip(".")
    except OSError as error:
        return f"{Path(str(error.filename or path)).name} cannot be read ({error.strerror})"
    except Exception as error:  # damage comes to light anywhere in the libraries that read it
        return f"it cannot be used ({type(error).__name__}: {printable(error, keep='')})"
    return None


def require_sound(path: Path, *, finite: bool = True, moments: bool = True) -> None:
    """Raise a `CheckpointError` that names the damage, if there is any; see `find_problem`."""
    if problem := find_problem(path, finite=finite, moments=moments):
        raise CheckpointError(
            f"The checkpoint {path} is damaged: {problem}.",
            hint="Use another of the run's checkpoints, or restore the files from a copy.",
        )


def read_settings(path: Path) -> dict[str, Any]:
    """Return the resolved settings that a checkpoint was trained with, as plain values.

    Raises:
        SettingsError: they cannot be read.
    """
    return read_settings_file(path / CONFIG)


def model_settings(values: Mapping[str, Any]) -> DecoderSettings:
    """Return the settings of the decoder among those of a run.

    Raises:
        CheckpointError: this version cannot build a model from them.
    """
    where = f"the model in {CONFIG}"
    try:
        return validated(DecoderSettings, values.get("model"), where, CheckpointError)
    except (TypeError, ArithmeticError, RecursionError) as error:  # validators on odd values
        raise CheckpointError(f"{where} is damaged: {printable(error, keep='')}") from error


def read_tokenizer(path: Path) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint; None if its model came without one.

    Raises:
        CheckpointError: the manifest cannot be read.
        TokenizerError: the tokenizer cannot.
    """
    return load_tokenizer(path / TOKENIZER) if TOKENIZER in read_manifest(path).files else None


def _check_sizes(path: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            missing = "is no regular file" if file.exists() else "is missing"
            raise CheckpointError(f"{name} {missing}")
        if (size := file.stat().st_size) != expected.bytes:
            raise CheckpointError(f"{name} has {size:,} bytes instead of {expected.bytes:,}")


@contextlib.contextmanager
def _hashed(path: Path, manifest: Manifest, names: Collection[str]) -> Iterator[None]:
    """Check the checksums of files beside what is done inside, of which they decide first.

    Raises:
        CheckpointError: a file is not what was written, whatever was found inside.
    """
    for name in names:
        begin(path / name)
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    for name in names:
        if digest_of(path / name) != manifest.files[name].sha256:
            raise CheckpointError(f"{name} does not match its checksum")
    if problem is not None:
        raise problem


def _check_sense(path: Path, manifest: Manifest, finite: bool, moments: bool) -> None:
    step = manifest.step
    named = named_step(path)
    if named is not None and named != step:
        raise CheckpointError(f"its name says step {named:,}, its manifest step {step:,}")
    state = read_state(path)
    if (state.format, state.step) != (manifest.format, step):
        raise CheckpointError(
            f"{STATE} is of step {state.step:,} and format {state.format}, its manifest of step "
            f"{step:,} and format {manifest.format}"
        )
    values = read_settings(path)
    _check_layers(values, len(tensor_names(stored(path, MODEL))))
    settings = model_settings(values)
    _check_tokenizer(path, manifest, settings)
    hollow = hollow_model(settings)
    known = ":" not in str(_optimizer_kind(values))
    weights = check_model(stored(path, MODEL), hollow, trained=step > 0, finite=finite)
    _check_count(manifest, MODEL, weights)
    file = stored(path, OPTIMIZER)
    held = check_optimizer(file, hollow, step, known=known) if moments else len(tensor_names(file))
    _check_count(manifest, OPTIMIZER, held)


def _check_layers(values: Mapping[str, Any], tensors: int) -> None:
    """Refuse a number of layers that is wrong, before hours are spent on building them."""
    model = values.get("model")
    layers = model.get("layers") if isinstance(model, Mapping) else None
    if isinstance(layers, int) and layers > tensors:
        raise CheckpointError(f"{CONFIG} says {layers:,} layers, but there are {tensors} tensors")


def _check_count(manifest: Manifest, name: str, found: int) -> None:
    if name not in manifest.files:
        return  # in parts, each of whose headers says what belongs to it
    expected = manifest.files[name].tensors
    if manifest.format > 1 and found != expected:
        raise CheckpointError(f"{name} holds {found} tensors, its manifest says {expected}")


def _check_tokenizer(path: Path, manifest: Manifest, settings: DecoderSettings) -> None:
    """Check the tokenizer against the manifest and the model's vocabulary."""
    if TOKENIZER not in manifest.files:
        if manifest.step > 0:
            raise CheckpointError(f"{TOKENIZER} is missing, but no model trains without one")
        return
    tokenizer = load_tokenizer(path / TOKENIZER)
    if manifest.format > 1 and tokenizer.fingerprint != manifest.tokenizer:
        raise CheckpointError(f"{TOKENIZER} is not the one that its manifest names")
    if tokenizer.vocab_size > settings.known_vocab_size():
        raise CheckpointError(
            f"{TOKENIZER} has {tokenizer.vocab_size:,} tokens, the model "
            f"{settings.known_vocab_size():,}"
        )


def _optimizer_kind(values: Mapping[str, Any]) -> object:
    train = values.get("train")
    optimizer = train.get("optimizer") if isinstance(train, Mapping) else None
    return optimizer.get("kind") if isinstance(optimizer, Mapping) else optimizer
