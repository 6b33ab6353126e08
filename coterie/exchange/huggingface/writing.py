"""From a decoder to a Hugging Face folder that `transformers` and its kin load as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import coterie
from coterie.exchange.files import SHARD_BYTES, write_tensors
from coterie.exchange.huggingface.fit import Fit, fitting
from coterie.exchange.huggingface.lift import Lifted
from coterie.exchange.huggingface.rules import Rule
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
    """Write a decoder as a checkpoint of the simplest architecture that expresses it exactly.

    Args:
        decoder: the model.
        tokenizer: goes along; None: no tokenizer files are written.
        out: the folder; it must not exist.
        dtype: precision of the weights; None: the decoder's. Selection biases stay float32.
        shard_bytes: size above which the weights are split into several files.

    Raises:
        ExchangeError: no architecture can hold the model, or a weight is beyond the precision.
        UserError: the folder exists, or the disk is full or not writable.
    """
    fit = fitting(decoder)
    lifted = Lifted(decoder, fit.settings)
    units = next(decoder.parameters()).dtype if dtype is None else dtype
    tensors = _Tensors(fit.family.rules(fit.settings), lifted, units)
    with atomic_directory(out) as folder:
        write_tensors(folder, tensors.sizes, tensors.read, shard_bytes)
        _write_json(folder / "config.json", _config(fit, tokenizer, units))
        _write_json(folder / "generation_config.json", _ends(tokenizer))
        if tokenizer is not None:
            write_huggingface(tokenizer, folder)
        (folder / "README.md").write_text(_card(decoder, fit), encoding="utf-8")
    return Path(out)


class _Tensors:
    """Foreign tensors by name, made when they are asked for."""

    def __init__(self, rules: Any, lifted: Lifted, units: torch.dtype) -> None:
        self._lifted, self._units = lifted, units
        self._made: dict[str, Tensor] = {}
        self._rule: dict[str, Rule] = {}
        self.sizes: dict[str, int] = {}
        for rule in rules:
            hollow = [torch.empty(lifted.shapes[name], device="meta") for name in rule.own]
            layout = rule.layouts[0]
            for name, tensor in zip(layout.names, layout.to_foreign(hollow), strict=True):
                self._rule[name] = rule
                self.sizes[name] = tensor.numel() * self._precision(rule).itemsize

    def read(self, name: str) -> Tensor:
        """Return a tensor; the others of its rule wait for their turn."""
        if name not in self._made:
            rule = self._rule[name]
            layout = rule.layouts[0]
            found = layout.to_foreign([self._lifted.read(each) for each in rule.own])
            self._made = dict(zip(layout.names, found, strict=True))
        return _rounded(self._made.pop(name), self._precision(self._rule[name]), name)

    def _precision(self, rule: Rule) -> torch.dtype:
        return torch.float32 if rule.exact else self._units


def _rounded(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    result = tensor.to(dtype)
    if not bool(result.isfinite().all()) and bool(tensor.isfinite().all()):
        raise ExchangeError(
            f"{name} holds values beyond {str(dtype).removeprefix('torch.')}: the largest is "
            f"{float(tensor.abs().max()):.3g}.",
            hint="Export with --dtype bfloat16 or float32.",
        )
    return result


def _config(fit: Fit, tokenizer: Tokenizer | None, units: torch.dtype) -> dict[str, Any]:
    name = str(units).removeprefix("torch.")
    start = {"architectures": [fit.family.architecture], "model_type": fit.family.model_type}
    # The second name of the precision is for programs that do not know the first.
    return {**start, **fit.config, **_ends(tokenizer), "dtype": name, "torch_dtype": name}


def _ends(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the tokens that begin and end a text."""
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


def _card(decoder: Decoder, fit: Fit) -> str:
    parameters = sum(each.numel() for each in decoder.parameters())
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "---",
            f"A {fit.family.title} model of {parameters:,} parameters and "
            f"{fit.settings.layers} layers, written by Coterie {coterie.__version__}.",
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
