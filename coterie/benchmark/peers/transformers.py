"""Beside `transformers.generate`: the same weights, read from our export."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coterie.benchmark.peers.interface import PeerWay
from coterie.benchmark.turns import Timing, Way
from coterie.exchange.huggingface import export_folder
from coterie.foundation.errors import require
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer

_EXPERTS = ("eager", "batched_mm", "grouped_mm")


class Transformers:
    """Hugging Face's own generation.

    Args:
        compiled: with a static cache and a compiled step, its fastest setting; takes a minute or
            more to compile.
    """

    def __init__(self, compiled: bool = False) -> None:
        self._compiled = compiled

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> Mapping[str, PeerWay]:
        """Return one way per implementation of experts that it has; see `Peer`."""
        library = require("transformers", "test")
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        path = export_folder(decoder, None, folder / "hf")
        model = library.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        experts = _EXPERTS if hasattr(model.config, "num_experts_per_tok") else ("eager",)
        if self._compiled:
            config = library.CompileConfig(mode="default", fullgraph=False)
            config._compile_all_devices = True  # by itself it compiles on GPUs alone
            options = {"cache_implementation": "static", "compile_config": config}
            ways = {f"transformers, compiled {name}": (name, options) for name in experts[1:]}
            ways = ways or {"transformers, compiled": ("eager", options)}
        else:
            ways = {f"transformers, {name}": (name, {}) for name in experts}
        moe = len(experts) > 1
        return {
            name: _Generate(library, model, implementation if moe else None, options)
            for name, (implementation, options) in ways.items()
        }


class _Generate:
    """Greedy decoding by one implementation of experts."""

    def __init__(
        self, library: Any, model: Any, experts: str | None, options: dict[str, Any]
    ) -> None:
        self._library, self._model = library, model
        self._experts, self._options = experts, options

    def __call__(self, prompts: Tensor, tokens: int) -> Way:
        def decode() -> Timing:
            if self._experts is not None:
                self._model.set_experts_implementation(self._experts)
            times: list[float] = []

            def note(ids: Tensor, scores: Any, **_: Any) -> Tensor:
                times.append(time.perf_counter())
                return torch.zeros(ids.shape[0], dtype=torch.bool)

            begin = time.perf_counter()
            with torch.inference_mode():
                whole = self._model.generate(
                    prompts, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False,
                    attention_mask=torch.ones_like(prompts), pad_token_id=0,
                    stopping_criteria=[note], **self._options,
                )  # fmt: skip
            return Timing.of(begin, times, whole[0, prompts.shape[1] :].tolist())

        return decode
