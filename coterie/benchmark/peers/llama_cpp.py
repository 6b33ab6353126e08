"""Beside llama.cpp, through llama-cpp-python: the same weights, read from our GGUF export."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from coterie.benchmark.peers.interface import PeerWay
from coterie.benchmark.turns import Timing, Way
from coterie.exchange.gguf import export_file
from coterie.foundation.errors import UserError
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer


class LlamaCpp:
    """The C++ program, with a cache of the weights' precision."""

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
