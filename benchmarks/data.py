"""How fast text becomes tokens and tokens become batches, beside the plain way of doing it.

    python benchmarks/data.py FILE [--megabytes 8] [--pairs 7]

Preparation, from a file to a finished store, beside the bare tokenizer on text in memory; batches
beside nanoGPT's memory map and a Dataset with a DataLoader, the other packings beside `stream`.
Ours and the peer run in turns; printed are the medians and the median and range of the pairwise
ratios (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset

from coterie.data import BatchLoader, Document, Sources, Store, TokenArray, prepare
from coterie.data.augment import Augment, augmentations
from coterie.data.packing import Isolated, Stream, Whole
from coterie.foundation.settings import members
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer

Way = Callable[[], object]


def seconds(way: Way, repeats: int = 1) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        way()
    return (time.perf_counter() - begin) / repeats


def in_turns(
    ours: Way, peer: Way, pairs: int, repeats: int = 1
) -> tuple[float, float, list[float]]:
    """Return the median seconds of both and the ratios peer / ours, after one warm-up each."""
    ours(), peer()
    times = [(seconds(ours, repeats), seconds(peer, repeats)) for _ in range(pairs)]
    mine, theirs = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(theirs), [b / a for a, b in times]


def bare(tokenizer: Tokenizer, text: str) -> Way:
    """Return what one would write without a framework: one call of the tokenizer's library."""
    if isinstance(tokenizer, CharacterTokenizer):
        number = {character: i for i, character in enumerate(tokenizer.alphabet)}
        return lambda: np.array([number[character] for character in text], dtype=np.uint16)
    rules = tokenizer._rules  # the library's own object
    if tokenizer.kind == "tiktoken":
        return lambda: np.array(rules.encode_ordinary(text), dtype=np.uint32)
    return lambda: np.array(rules.encode_batch_fast([text])[0].ids, dtype=np.uint16)


def measure_preparation(file: Path, text: str, pairs: int, folder: Path) -> None:
    print(f"\npreparation, {len(text.encode()) / 1e6:.1f} MB")
    print(f"{'':28}{'ours MB/s':>10}{'bare MB/s':>10}{'ratio':>8}   range")
    size = len(text.encode()) / 1e6
    for name in ("characters", "bpe:4096", "gpt2", "o200k_base"):
        tokenizer = parse_tokenizer(name).build([text])
        for workers in (1, None):

            def ours(tokenizer: Tokenizer = tokenizer, workers: int | None = workers) -> None:
                out = folder / "store"
                prepare(Sources([file]), out, tokenizer, workers=workers, replace=out.exists())

            mine, theirs, ratios = in_turns(ours, bare(tokenizer, text), pairs)
            threads = "1 thread" if workers else "all threads"
            print(
                f"{name + ', ' + threads:28}{size / mine:10.1f}{size / theirs:10.1f}"
                f"{statistics.median(ratios):8.2f}   {min(ratios):.2f}–{max(ratios):.2f}"
            )


class PlainDataset(Dataset):
    """The usual Dataset of windows."""

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.context = tokens, context

    def __len__(self) -> int:
        return len(self.tokens) - self.context

    def __getitem__(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = torch.from_numpy(self.tokens[start : start + self.context + 1].astype(np.int64))
        return part[:-1], part[1:]


def nanogpt_batch(path: Path, dtype: str, context: int, size: int) -> Way:
    """The published way: map the file for each batch, draw starts, stack the slices."""

    def batch() -> object:
        data = np.memmap(path, dtype=dtype, mode="r")
        starts = torch.randint(len(data) - context, (size,))
        x = torch.stack([torch.from_numpy(data[i : i + context].astype(np.int64)) for i in starts])
        y = torch.stack(
            [torch.from_numpy(data[i + 1 : i + 1 + context].astype(np.int64)) for i in starts]
        )
        return x, y

    return batch


def memory_of(loader: BatchLoader) -> int:
    """Return by how many bytes the process grows while 5,000 batches are read."""
    loader.batch(0)
    before = psutil.Process().memory_full_info().uss
    for index in range(1, 5001):
        loader.batch(index)
    return psutil.Process().memory_full_info().uss - before


def measure_packings(text: str, pairs: int, folder: Path) -> None:
    """Measure batches of documents of 1 to 60 lines; the peer of each packing is `stream`."""
    lines, documents, lengths = text.splitlines(keepends=True), [], random.Random(0)
    while lines:
        count = lengths.randint(1, 60)
        documents.append(Document(f"{len(documents)}", "".join(lines[:count])))
        del lines[:count]
    store = prepare(documents, folder / "documents", parse_tokenizer("gpt2").build())
    tokens = store.tokens("train")
    print(f"\npackings, {store.manifest.splits['train'].documents:,} documents")
    print(f"{'':28}{'µs':>10}{'stream µs':>10}{'ratio':>8}   range")
    for size, context in ((32, 256), (8, 1024)):
        for packing in (Isolated(), Whole()):
            place = iter(range(10**9))
            loaders = [
                BatchLoader(tokens, context, size, seed=1, packing=each)
                for each in (packing, Stream())
            ]
            ways = [lambda loader=loader: loader.batch(next(place)) for loader in loaders]  # noqa: B023
            mine, theirs, ratios = in_turns(*ways, pairs, repeats=100)
            print(
                f"{f'{size} × {context}, {packing.kind}':28}{mine * 1e6:10.0f}{theirs * 1e6:10.0f}"
                f"{statistics.median(ratios):8.2f}   {min(ratios):.2f}–{max(ratios):.2f}"
            )
            if size == 32:
                print(f"{'':28}memory: {memory_of(loaders[0]) / 1e6:+.1f} MB over 5,000 batches")


def measure_augmentations(text: str, pairs: int) -> None:
    """Measure batches of the shape of quickstart, with each kind and with all; the peer: none."""
    signs = ("<SPEAKER>", "<unk>", "<|reverse|>", *(f"<|fim_{each}|>" for each in
             ("prefix", "suffix", "middle")))  # fmt: skip
    print(f"\naugmentations, 8 × 256\n{'':28}{'µs':>10}{'none µs':>10}{'ratio':>8}   range")
    for name in ("characters", "gpt2"):
        tokenizer = parse_tokenizer(name, signs).build([text])
        tokens = TokenArray([tokenizer.encode_array(text)])
        kinds = sorted((kind() for kind in members(Augment)), key=lambda each: not each.reorders)
        kinds = [each for each in kinds if name == "gpt2" or each.kind != "bpe_dropout"]
        for chosen in (*([each] for each in kinds), kinds):
            augment = augmentations(chosen, tokenizer, 1)
            loaders = [BatchLoader(tokens, 256, 8, 1, augment=each) for each in (augment, ())]
            place = iter(range(10**9))
            ways = [lambda loader=loader: loader.batch(next(place)) for loader in loaders]  # noqa: B023
            mine, theirs, ratios = in_turns(*ways, pairs, repeats=30)
            label = f"{name}, {chosen[0].kind if len(chosen) == 1 else 'all'}"
            print(
                f"{label:28}{mine * 1e6:10.0f}{theirs * 1e6:10.0f}"
                f"{statistics.median(ratios):8.2f}   {min(ratios):.2f}–{max(ratios):.2f}"
            )


def measure_batches(store: Store, pairs: int) -> None:
    tokens, dtype = store.tokens("train"), store.manifest.dtype
    path = store.path / store.manifest.splits["train"].shards[0].file
    grown = memory_of(BatchLoader(tokens, 256, 32, seed=1))
    print(f"\nmemory of the process grew by {grown / 1e6:.1f} MB over 5,000 batches of 32 × 256")
    print("\nbatches, prepared while one waits for them")
    print(f"{'':28}{'ours µs':>10}{'peer µs':>10}{'ratio':>8}   range")
    for size, context in ((12, 64), (32, 256), (8, 1024), (128, 256)):
        loader = BatchLoader(tokens, context, size, seed=1)
        place = iter(range(10**9))
        dataset = DataLoader(PlainDataset(tokens[:], context), batch_size=size, shuffle=True)
        stream = iter(dataset)
        peers = {
            "nanoGPT's memory map": nanogpt_batch(path, dtype, context, size),
            "Dataset + DataLoader": lambda stream=stream: next(stream),
        }
        for name, peer in peers.items():

            def ours(loader: BatchLoader = loader, place=place) -> object:
                return loader.batch(next(place))

            mine, theirs, ratios = in_turns(ours, peer, pairs, repeats=100)
            print(
                f"{f'{size} × {context}, {name}':28}{mine * 1e6:10.0f}{theirs * 1e6:10.0f}"
                f"{statistics.median(ratios):8.2f}   {min(ratios):.2f}–{max(ratios):.2f}"
            )
    with BatchLoader(tokens, 256, 32, seed=1) as loader:
        stream = loader.iterate()
        next(stream)
        waits = []
        for _ in range(100):
            time.sleep(0.005)  # the step
            waits.append(seconds(lambda: next(stream)))
    median = statistics.median(waits) * 1e6
    print(f"waiting for a prefetched batch of 32 × 256: median {median:.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, default=8, help="repeat the file to this size")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--augmentations", action="store_true", help="measure these alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = options.file.read_text(encoding="utf-8")
        text *= max(round(options.megabytes * 1e6 / len(text)), 1)
        file = folder / "text.txt"
        file.write_text(text, encoding="utf-8")
        measure_augmentations(text[:1_000_000], options.pairs)
        if options.augmentations:
            return
        measure_preparation(file, text, options.pairs, folder)
        store = prepare(Sources([file]), folder / "gpt2", parse_tokenizer("gpt2").build())
        measure_batches(store, options.pairs)
        measure_packings(text, options.pairs, folder)


if __name__ == "__main__":
    main()
