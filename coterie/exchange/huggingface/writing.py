"""Exporting a decoder as a Hugging Face folder that `transformers` and others load as it is."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import coterie
from coterie.exchange.core.match import Match, match
from coterie.exchange.core.reparametrise import Reparametrised
from coterie.exchange.core.writing import ForeignTensors
from coterie.exchange.files import SHARD_BYTES, write_tensors
from coterie.exchange.huggingface.families import FAMILIES, Family
from coterie.exchange.imported import ExchangeError
from coterie.exchange.tokenizers import write_huggingface
from coterie.foundation.files import atomic_directory
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_folder(
    decoder: Decoder,
    tokenizer: Tokenizer | None,
    out: Path | str,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a decoder as a checkpoint of the simplest family that expresses it exactly.

    Args:
        tokenizer: written as well; None: there are no tokenizer files.
        out: the folder; it must not exist.
        dtype: precision of the weights; None: the decoder's. Selection biases stay float32.
        shard_bytes: size above which the weights are split into several files.

    Raises:
        ExchangeError: no family can hold the model, or a weight is beyond the precision.
        UserError: the folder exists, or the disk is full or not writable.
    """
    found = match_family(decoder)
    own = Reparametrised(decoder, found.settings)
    tensors = ForeignTensors(found.family.tensor_map(found.settings), own)
    units = next(decoder.parameters()).dtype if dtype is None else dtype
    units_of = {name: torch.float32 if name in tensors.exact else units for name in tensors.shapes}
    sizes = {name: math.prod(x) * units_of[name].itemsize for name, x in tensors.shapes.items()}

    def read(name: str) -> Tensor:
        return _rounded(tensors.read(name), units_of[name], name)

    with atomic_directory(out) as folder:
        write_tensors(folder, sizes, read, shard_bytes)
        _write_json(folder / "config.json", _config(found, tokenizer, units))
        _write_json(folder / "generation_config.json", _ends(tokenizer))
        if tokenizer is not None:
            write_huggingface(tokenizer, folder)
        (folder / "README.md").write_text(_card(decoder, found), encoding="utf-8")
    return Path(out)


def match_family(decoder: Decoder) -> Match[Family]:
    """Return the simplest family that expresses a decoder exactly.

    Raises:
        ExchangeError: there is none.
    """
    return match(decoder, FAMILIES.values(), format="Hugging Face", page="docs/exchange.md")


def _rounded(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    result = tensor.to(dtype)
    if not bool(result.isfinite().all()) and bool(tensor.isfinite().all()):
        raise ExchangeError(
            f"{name} holds values beyond {str(dtype).removeprefix('torch.')}: the largest is "
            f"{float(tensor.abs().max()):.3g}.",
            hint="Export with --dtype bfloat16 or float32.",
        )
    return result


def _config(
    found: Match[Family], tokenizer: Tokenizer | None, units: torch.dtype
) -> dict[str, Any]:
    name = str(units).removeprefix("torch.")
    start = {"architectures": [found.family.architecture], "model_type": found.family.name}
    # `torch_dtype` is for programs that do not know the newer name.
    return {**start, **found.values, **_ends(tokenizer), "dtype": name, "torch_dtype": name}


def _ends(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the tokens that begin and end a text; an end is a list where there are several."""
    if tokenizer is None:
        return {"bos_token_id": None, "eos_token_id": None}
    first = tokenizer.named_end
    ends = [first, *sorted(tokenizer.ends - {first})]
    return {
        "bos_token_id": tokenizer.start_of_text,
        "eos_token_id": ends if len(ends) > 1 else first,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(decoder: Decoder, found: Match[Family]) -> str:
    parameters = sum(each.numel() for each in decoder.parameters())
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "---",
            f"A {found.family.title} model of {parameters:,} parameters and "
            f"{found.settings.layers} layers, written by Coterie {coterie.__version__}.",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained(".")',
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            "```",
            "",
        ]
    )
