"""Others to measure beside with the same weights, asked only when they are named."""

import importlib
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.benchmark.decode import our_side
from coterie.benchmark.turns import Timing, Way
from coterie.exchange.gguf import export_file
from coterie.exchange.huggingface import export_folder
from coterie.foundation.errors import UserError, require
from coterie.generate import SamplingSettings
from coterie.model import Decoder
from coterie.quantise import Int4Weights, Int8Weights, WeightSettings, quantise
from coterie.tokenizer.interface import Tokenizer


class Peer(Protocol):
    """Another program that can decode with the same weights."""

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> "Mapping[str, PeerWay]":
        """Return its ways of decoding, by the names they have in the table.

        Args:
            decoder: the model, in float32.
            folder: an empty one, for what it reads.

        Raises:
            UserError: it is not installed, or cannot hold this model.
        """
        ...


class PeerWay(Protocol):
    """One way of decoding greedily."""

    def __call__(self, prompts: Int[Tensor, "B T"], tokens: int) -> Way | None:
        """Return what decodes this many tokens after each prompt; None: not so many rows."""
        ...


_EXPERTS = ("eager", "batched_mm", "grouped_mm")


class Transformers:
    """`transformers.generate`, which reads our export.

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


class LlamaCpp:
    """The C++ program through llama-cpp-python, which reads our GGUF export in float32."""

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> Mapping[str, PeerWay]:
        """Return one way, in float32; see `Peer`."""
        try:
            llama_cpp = importlib.import_module("llama_cpp")
        except ImportError as error:
            raise UserError(
                f"llama.cpp's Python package cannot be imported: {error}.",
                hint="Run: pip install llama-cpp-python   (it is compiled while it is installed)",
            ) from error
        path = export_file(decoder, None, folder / "model.gguf", dtype="f32")
        return {"llama.cpp, f32": _Eval(llama_cpp, path, decoder.settings.context, threads)}


class _Eval:
    """Greedy decoding, token by token."""

    def __init__(self, library: Any, path: Path, context: int, threads: int) -> None:
        self._model = library.Llama(
            str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def __call__(self, prompts: Tensor, tokens: int) -> Way | None:
        if prompts.shape[0] > 1:
            return None  # its Python package decodes one text
        prompt = prompts[0].tolist()

        def decode() -> Timing:
            self._model.reset()
            times, written = [], []
            begin = time.perf_counter()
            for token in self._model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=False):
                times.append(time.perf_counter())
                written.append(token)
                if len(written) == tokens:
                    break
            return Timing.of(begin, times, written)

        return decode


class Quantised:
    """Our engine, reading the weights in another format."""

    def __init__(self, name: str, weights: WeightSettings) -> None:
        self._name, self._weights = name, weights

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> Mapping[str, PeerWay]:
        """Return one way, with a copy of the model."""
        other = deepcopy(decoder)
        quantise(other, self._weights)
        side = our_side(other, tokenizer, SamplingSettings())

        def way(prompts: Int[Tensor, "B T"], tokens: int) -> Way | None:
            return side.way(prompts, tokens)

        return {f"{side.name}, {self._name}": way}


PEERS: dict[str, Peer] = {
    "transformers": Transformers(),
    "transformers-compiled": Transformers(compiled=True),
    "llama.cpp": LlamaCpp(),
    "int8": Quantised("int8", Int8Weights()),
    "int4": Quantised("int4", Int4Weights()),
}
"""By the names that `--against` takes."""
