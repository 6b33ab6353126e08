"""`coterie model import` and `export`: models from elsewhere as runs, runs as files for others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError, nearest

if TYPE_CHECKING:
    from coterie.exchange.imported import Imported
    from coterie.model import Decoder

_IMPORT = "For example: coterie model import path/to/SmolLM2 --name smollm"
_EXPORT = "For example: coterie model export latest --format hf --out exported"
_FORMATS = ("hf", "gguf")
_PRECISIONS = {
    "hf": {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"},
    "gguf": {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "q8_0": "q8_0"},
}
_SHORT = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def import_model(
    *words: str, name: str | None = None, tokenizer: str | None = None, json: bool = False
) -> None:
    """Make a run of a model from elsewhere: `coterie model import PATH [--name RUN]`.

    PATH is a folder in the format of Hugging Face (config.json, safetensors, tokenizer.json) or a
    .gguf file. Pickled weights are never opened. Every verb can use the run: generate, evaluate,
    model show, model extend, model export, and training on from its weights.

    Parameters
    ----------
    words
        The folder or file.
    name
        Name of the run; by default that of the folder or file.
    tokenizer
        Use this one instead of the model's: gpt2, cl100k_base, o200k_base, smollm, bytes, or a
        path.
    json
        Print JSON.
    """
    from coterie.exchange.runs import own_new_run, write_model_run

    path = Path(one_target(read_words(words), "folder or file", _IMPORT))
    with own_new_run(name, "importing", base=_name_for(path)) as run:
        imported = _read(path, with_tokenizer=tokenizer is None)
        chosen = imported.tokenizer if tokenizer is None else _tokenizer(tokenizer, imported)
        run = write_model_run(
            imported.decoder,
            chosen,
            name=run.name,
            description=f"{imported.architecture} model imported from {imported.source.name}",
            origin={
                "source": str(imported.source.resolve()),
                "architecture": imported.architecture,
                "notes": list(imported.notes),
            },
        )
    decoder = imported.decoder
    row = {
        "run": run.name,
        "path": str(run.path),
        "architecture": imported.architecture,
        "layers": decoder.settings.layers,
        "parameters": sum(each.numel() for each in decoder.parameters()),
        "vocabulary": decoder.settings.vocab_size,
        "tokenizer": None if chosen is None else f"{chosen.vocab_size:,} tokens ({chosen.kind})",
        "notes": list(imported.notes),
    }
    if json:
        emit_json(row)
        return
    _show(row)
    steps = [f"coterie model show {run.name}  # its layers and counts"]
    if chosen is not None:
        steps.insert(0, f'coterie generate {run.name} "Once"  # write text with it')
    next_step(*steps)


def export_model(
    *words: str,
    format: str = "hf",
    out: Path | None = None,
    dtype: str | None = None,
    step: int | None = None,
    json: bool = False,
) -> None:
    """Write a run's model for other programs: `coterie model export RUN --format hf --out DIR`.

    The simplest architecture of the format that expresses the model exactly is chosen; if there is
    none, nothing is written and the part that has no home is named.

    Parameters
    ----------
    words
        The run: a name, `latest`, or the path of a run or checkpoint.
    format
        hf (a folder that transformers and vLLM load) or gguf (a file for llama.cpp).
    out
        The folder or file to write; by default the run's name, with .gguf where it is that.
    dtype
        Precision of the weights: float32, bfloat16, float16; q8_0 for gguf as well.
    step
        Use the checkpoint of this step instead of the newest.
    json
        Print JSON.
    """
    from coterie.checkpoint import load_model

    target = one_target(read_words(words), "run", _EXPORT)
    if format not in _FORMATS:
        raise UserError(f"There is no format “{format}”; {nearest(format, _FORMATS)}")
    precision = _precision(format, dtype)
    loaded = load_model(target, step)
    _make_float(loaded.decoder)
    _take_template(loaded)
    run = loaded.path.parents[1].name if loaded.path.parent.name == "checkpoints" else target
    out = out or Path(f"{run}.gguf" if format == "gguf" else f"{run}-hf")
    if format == "gguf":
        from coterie.exchange.gguf import export_file

        options = {} if precision is None else {"dtype": precision}
        export_file(loaded.decoder, loaded.own_tokenizer, out, **options)
        steps = [f"llama-cli -m {out} -p Once  # with llama.cpp"]
    else:
        from coterie.exchange.huggingface import export_folder
        from coterie.exchange.huggingface.writing import DTYPES

        units = None if precision is None else DTYPES[precision]
        export_folder(loaded.decoder, loaded.own_tokenizer, out, dtype=units)
        steps = [f"vllm serve {out}  # or transformers: AutoModelForCausalLM.from_pretrained"]
    row = {"run": run, "step": loaded.step, "format": format, "out": str(out)}
    row |= {"architecture": _architecture(out), "bytes": _size(out)}
    if json:
        emit_json(row)
        return
    _show(row)
    next_step(*steps, f"coterie model import {out}  # and back")


def _take_template(loaded: Any) -> None:
    """Let programs that read the files write conversations as the run was tuned."""
    from coterie.tokenizer.chat import template_of

    if loaded.own_tokenizer is not None and loaded.settings.get("align"):
        template = template_of(loaded.settings, loaded.own_tokenizer)
        loaded.own_tokenizer.chat_template = template.source


def _make_float(decoder: Decoder) -> None:
    """Give a quantised model the values that its weights stand for, and say so."""
    from coterie.quantise import dequantise, weights_of

    if kind := weights_of(decoder):
        dequantise(decoder)
        stderr.print(f"The weights are {kind}; written is what they stand for.", style="hint")


def _read(path: Path, *, with_tokenizer: bool) -> Imported:
    """Read a model in whichever of the formats the path is."""
    if path.suffix.lower() == ".gguf" or _begins(path, b"GGUF"):
        from coterie.exchange.gguf import import_file

        return import_file(path)
    from coterie.exchange.huggingface import import_folder

    return import_folder(path, with_tokenizer=with_tokenizer)


def _begins(path: Path, letters: bytes) -> bool:
    """Whether a path is a file that begins with these letters, whatever its name."""
    try:
        if not path.is_file():  # a pipe would block for ever
            return False
        with path.open("rb") as file:
            return file.read(len(letters)) == letters
    except OSError:  # nothing that can be read: the reader says which
        return False


def _tokenizer(name: str, imported: Imported) -> Any:
    """Return the tokenizer that was asked for, if the model can count to its last token."""
    from coterie.cli.tokenizer import load_named
    from coterie.exchange.tokenizers import fitted, from_huggingface

    # A path may be a tokenizer's from elsewhere, with its conventions beside it.
    chosen = from_huggingface(name) if Path(name).exists() else load_named(name)
    return fitted(chosen, imported.decoder.settings.known_vocab_size())


def _precision(format: str, dtype: str | None) -> str | None:
    """Return the name that a format gives to a precision."""
    if dtype is None:
        return None
    choices = _PRECISIONS[format]
    if (wanted := _SHORT.get(dtype, dtype)) not in choices:
        raise UserError(f"{format} has no precision “{dtype}”; {nearest(dtype, choices)}")
    return choices[wanted]


def _name_for(path: Path) -> str:
    """Return a name for a run of a model that lies at a path."""
    resolved = path.resolve()
    base = resolved.stem if resolved.is_file() else resolved.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip("-._") or "imported"
    return "imported" if name == "latest" else name


def _architecture(out: Path) -> str | None:
    """Return what was written, from the written configuration."""
    from coterie.exchange.files import read_json

    return read_json(out / "config.json")["architectures"][0] if out.is_dir() else None


def _size(out: Path) -> int:
    files = out.rglob("*") if out.is_dir() else [out]
    return sum(file.stat().st_size for file in files if file.is_file())


def _show(row: dict[str, Any]) -> None:
    notes = row.get("notes", [])
    console.print(
        facts(
            (key, f"{value:,}" if isinstance(value, int) else value)
            for key, value in row.items()
            if key != "notes" and value is not None
        )
    )
    for note in notes:
        stderr.print(f"note: {note}", soft_wrap=True)
    if row.get("run") and row.get("tokenizer", "") is None:
        stderr.print("No tokenizer came along: the model can be shown and exported, but not read.")
