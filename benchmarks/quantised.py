"""Weights of few bits: what they cost in perplexity and bytes, and how fast a row is multiplied.

    pip install "coterie[gguf,fast]"
    python benchmarks/quantised.py quality [--file MODEL.gguf] [--page 1800] [--only int4]
    python benchmarks/quantised.py speed [--layers 24] [--repeats 15]

Quality: SmolLM2-135M-Instruct (see smollm2.py) on a page of Shakespeare and one of Python's
standard library, float32 against each format. Speed: matrices that fit no cache, 512 × 512,
1536 × 512, 768 × 512 and 8192 × 512 per layer, one vector, one and two threads; formats take turns.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coterie.evaluate import perplexity
from coterie.exchange.gguf import import_file
from coterie.foundation.runs import cache_root
from coterie.model import Decoder
from coterie.quantise import Int4Weights, Int8Weights, quantise, stored_bytes
from coterie.tokenizer.interface import Tokenizer

ROWS, SIZE = (512, 1536, 768, 8192), 512
FORMATS = {
    "int8": Int8Weights(),
    "int4": Int4Weights(),
    "int4, plain rounding": Int4Weights(search=False),
    "int4, embedding and head too": Int4Weights(embedding="int4", head="int4"),
}


def quality(file: Path, characters: int, only: str | None) -> None:
    """Print the perplexity of each format on both pages."""
    from smollm2 import page

    code = Path(heapq.__file__).read_text(encoding="utf-8")
    middle = code.index("\n", len(code) // 2) + 1
    pages = {"Shakespeare": page(characters), "code": code[middle : middle + characters]}
    made = import_file(file)
    decoder, tokenizer = made.decoder, made.tokenizer
    assert tokenizer is not None, made.notes
    kept = {name: each.clone() for name, each in decoder.state_dict().items()}
    base = perplexities(decoder, tokenizer, pages)
    print(f"float32: {stored_bytes(decoder.parameters()):,} bytes; {shown(base)}", flush=True)
    for name, weights in FORMATS.items():
        if only not in (None, name):
            continue
        decoder = decoder.settings.build().eval()
        decoder.load_state_dict(kept)
        started = time.perf_counter()
        quantise(decoder, weights)
        seconds = time.perf_counter() - started
        found = perplexities(decoder, tokenizer, pages)
        change = ", ".join(f"{page} {found[page] / base[page] - 1:+.2%}" for page in found)
        size = stored_bytes(decoder.parameters())
        print(
            f"{name}: {size:,} bytes, made in {seconds:.1f} s; {shown(found)}; {change}", flush=True
        )


def perplexities(decoder: Decoder, tokenizer: Tokenizer, pages: dict[str, str]) -> dict[str, float]:
    """Return the perplexity of each page."""
    return {name: perplexity(decoder, tokenizer, text).perplexity for name, text in pages.items()}


def shown(found: dict[str, float]) -> str:
    """Return perplexities for people."""
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def compiled() -> tuple[Callable[..., None], ...]:
    """Return what multiplies rows start … stop by a vector: in float32, int8 and int4."""
    from numba import njit

    from coterie.generate.native.quantised import dot_int4_spread, dot_int8, spread_int4

    options = {"nogil": True, "fastmath": True}

    @njit(**options)
    def rows_float(weight, x, out, start, stop):
        for row in range(start, stop):
            total = np.float32(0)
            for i in range(x.shape[0]):
                total += weight[row, i] * x[i]
            out[row] = total

    @njit(**options)
    def rows_int8(data, scale, x, out, start, stop):
        size = x.shape[0]
        for row in range(start, stop):
            first, scales = data.ctypes.data + row * size, scale.ctypes.data + row * (size // 16)
            out[row] = dot_int8(first, scales, x.ctypes.data, size)

    @njit(**options)
    def rows_int4(packed, scale, x, spread, shift, out, start, stop):
        size = x.shape[0]
        spread_int4(x.ctypes.data, size, spread.ctypes.data, shift.ctypes.data)
        for row in range(start, stop):
            out[row] = dot_int4_spread(
                packed.ctypes.data + row * (size // 2),
                scale.ctypes.data + row * (size // 8),
                spread.ctypes.data,
                shift.ctypes.data,
                size,
            )

    return rows_float, rows_int8, rows_int4


def kernels(layers: int) -> dict[str, tuple[float, Callable[[int, int, int, int], None]]]:
    """Return for each format its bytes per weight and what computes rows start … stop."""
    rows_float, rows_int8, rows_int4 = compiled()
    draw = np.random.default_rng(0)
    x = draw.standard_normal(SIZE).astype(np.float32)
    outs = [np.zeros(rows, np.float32) for rows in ROWS]
    scratch = [(np.empty(SIZE, np.float32), np.empty(SIZE // 8, np.float32)) for _ in range(2)]

    def each(make: Callable[[int], np.ndarray]) -> list[list[np.ndarray]]:
        return [[make(rows) for rows in ROWS] for _ in range(layers)]

    floats = each(lambda rows: draw.standard_normal((rows, SIZE), np.float32))
    data = each(lambda rows: draw.integers(-127, 128, (rows, SIZE), np.int8))
    packed = each(lambda rows: draw.integers(0, 256, (rows, SIZE // 2), np.uint8))
    scale = each(lambda rows: np.full((rows, SIZE // 32), 0x3F80, np.uint16))  # bfloat16 1.0
    scales = each(lambda rows: np.full((rows, SIZE // 16), 0x3F80, np.uint16))

    def of_float(layer: int, part: int, thread: int, threads: int) -> None:
        rows_float(floats[layer][part], x, outs[part], *share(part, thread, threads))

    def of_int8(layer: int, part: int, thread: int, threads: int) -> None:
        place = share(part, thread, threads)
        rows_int8(data[layer][part], scale[layer][part], x, outs[part], *place)

    def of_int4(layer: int, part: int, thread: int, threads: int) -> None:
        own, place = scratch[thread], share(part, thread, threads)
        rows_int4(packed[layer][part], scales[layer][part], x, *own, outs[part], *place)

    return {"float32": (4.0, of_float), "int8": (1.0625, of_int8), "int4": (0.625, of_int4)}


def share(part: int, thread: int, threads: int) -> tuple[int, int]:
    """Return the rows of a matrix that one of the threads computes."""
    return ROWS[part] * thread // threads, ROWS[part] * (thread + 1) // threads


def speed(layers: int, repeats: int) -> None:
    """Print the time that all layers take in each format."""
    made = kernels(layers)

    def seconds(name: str, threads: int) -> float:
        def work(thread: int) -> None:
            for layer in range(layers):
                for part in range(len(ROWS)):
                    made[name][1](layer, part, thread, threads)

        others = [threading.Thread(target=work, args=(k,)) for k in range(1, threads)]
        started = time.perf_counter()
        for other in others:
            other.start()
        work(0)
        for other in others:
            other.join()
        return time.perf_counter() - started

    weights = layers * sum(ROWS) * SIZE
    for threads in (1, 2):
        times: dict[str, list[float]] = {name: [seconds(name, threads)][:0] for name in made}
        for _ in range(repeats):
            for name in made:
                times[name].append(seconds(name, threads))
        base = statistics.median(times["float32"])
        for name, (size, _) in made.items():
            middle = statistics.median(times[name])
            low, *_, high = statistics.quantiles(times[name], n=4)
            print(
                f"{threads} threads, {name}: {1e3 * middle:.1f} ms ({1e3 * low:.1f} … "
                f"{1e3 * high:.1f}), {weights * size / middle / 1e9:.1f} GB/s, "
                f"{base / middle:.2f} × float32"
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("quality", "speed"))
    parser.add_argument("--file", type=Path, help="the model's file, if it is there already")
    parser.add_argument("--page", type=int, default=1800, help="characters to measure on")
    parser.add_argument("--only", help="one of the formats")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.part == "speed":
        speed(arguments.layers, arguments.repeats)
        return
    from smollm2 import fetch

    file = arguments.file or fetch(cache_root() / "smollm2")
    quality(file, arguments.page, arguments.only)


if __name__ == "__main__":
    main()
