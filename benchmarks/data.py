"""How fast text becomes tokens and tokens become batches, beside the plain way of doing it.

    python benchmarks/data.py FILE [--megabytes 8] [--pairs 7]
    python benchmarks/data.py FILE --augmentations [--step]
    python benchmarks/data.py FOLDER [--pairs 3] [--only gpt2,memory]

Preparation, from a file to a finished store, beside the bare tokenizer on text in memory; batches
beside nanoGPT's memory map and a Dataset with a DataLoader, the other packings beside `stream`.
Given a folder of real texts, of 200 MB say, its preparation is measured beside the same documents
in the tokenizer's own batch call with as many threads; then the memory of a tenth of them and of
all; then whether 1, 2 and 4 processes, and one that is killed and resumed, write the same bytes.
Ours and the peer run in turns; printed are the medians and the median and range of the pairwise
ratios (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset

from coterie.api.given import layer_of, resolve
from coterie.data import BatchLoader, Document, Sources, Store, TokenArray, prepare
from coterie.data.augment import Augment, augmentations
from coterie.data.packing import Isolated, Stream, Whole
from coterie.foundation.files import sha256_file
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import members
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.train.session import open_session

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


def in_batch(tokenizer: Tokenizer, texts: list[str], threads: int) -> int:
    """Return how many tokens the library's own batch call gives, a thousand documents at once."""
    rules, count = tokenizer._rules, 0
    for at in range(0, len(texts), 1024):
        part = texts[at : at + 1024]
        if tokenizer.kind == "tiktoken":
            count += sum(map(len, rules.encode_ordinary_batch(part, num_threads=threads)))
        else:  # with as many threads as RAYON_NUM_THREADS says, by default one per processor
            count += sum(len(each.ids) for each in rules.encode_batch_fast(part))
    return count


def measure_corpus(root: Path, pairs: int, names: list[str], folder: Path) -> None:
    """Measure the preparation of a folder of texts beside the tokenizer's batch call."""
    threads = os.cpu_count() or 1
    texts = [document.text for document in Sources([root])]
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"\npreparation, {size:.0f} MB in {len(texts):,} files, {threads} processors")
    print(f"{'':28}{'ours MB/s':>10}{'bare MB/s':>10}{'ratio':>8}   range", flush=True)
    for name in names:
        tokenizer = parse_tokenizer(name).build(texts[:: len(texts) // 500 + 1])
        times: dict[str, list[float]] = {"bare": [], "workers": [], "processes": []}
        for _ in range(pairs):
            for way, found in times.items():
                out = folder / "store"
                shutil.rmtree(out, ignore_errors=True)
                begun = time.perf_counter()
                if way == "bare":
                    in_batch(tokenizer, texts, threads)
                else:
                    prepare(Sources([root]), out, tokenizer, **{way: threads})
                found.append(time.perf_counter() - begun)
        for way in ("workers", "processes"):
            ratios = [b / a for a, b in zip(times[way], times["bare"], strict=True)]
            mine, theirs = (size / statistics.median(times[each]) for each in (way, "bare"))
            print(
                f"{f'{name}, {threads} {way}':28}{mine:10.1f}{theirs:10.1f}"
                f"{statistics.median(ratios):8.2f}   {min(ratios):.2f}–{max(ratios):.2f}",
                flush=True,
            )


def prepared(root: Path, out: Path, *flags: str, until: str = "") -> tuple[float, float]:
    """Run `coterie data prepare`; return the peak memory of it and of its children, in MB.

    With `until`, it is killed as soon as such a file is there.
    """
    words = ["data", "prepare", str(root), "--out", str(out), *flags]
    command = [sys.executable, "-m", "coterie", *words]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own = children = 0.0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            own = max(own, process.memory_info().rss / 1e6)
            below = [each.memory_info().rss for each in process.children(recursive=True)]
            children = max(children, sum(below) / 1e6)
        if until and any(out.parent.glob(until)):
            process.kill()
        time.sleep(0.05)
    assert until or process.returncode == 0
    return own, children


def measure_corpus_memory(root: Path, folder: Path) -> None:
    """Print the peak memory of preparing a tenth of a folder and all of it."""
    tenth = folder / "tenth"
    for number, file in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        if number % 10 == 0:
            (tenth / file.parent.relative_to(root)).mkdir(parents=True, exist_ok=True)
            (tenth / file.relative_to(root)).write_bytes(file.read_bytes())
    print(f"\n{'peak memory, MB':28}{'a tenth':>10}{'all':>10}{'ratio':>8}", flush=True)
    for how in ((), ("--processes", "2")):
        small, large = (
            prepared(each, folder / f"m{place}", *how) for place, each in enumerate((tenth, root))
        )
        for what, one, other in zip(("itself", "its children"), small, large, strict=True):
            if one:
                print(
                    f"{' '.join([*how, what]):28}{one:10.0f}{other:10.0f}{other / one:8.2f}",
                    flush=True,
                )
        for place in range(2):
            shutil.rmtree(folder / f"m{place}")


def check_corpus(root: Path, folder: Path) -> None:
    """Print whether all ways of preparing a folder write the same bytes."""

    def sums(store: Path) -> dict[str, str]:
        return {file.name: sha256_file(file) for file in sorted(store.iterdir())}

    prepared(root, folder / "threads")
    wanted = sums(folder / "threads")
    print()
    for count in (1, 2, 4):
        out = folder / f"by{count}"
        prepared(root, out, "--processes", str(count))
        print(f"{count} processes: the bytes of threads: {sums(out) == wanted}", flush=True)
        shutil.rmtree(out)
    out = folder / "killed" / "store"
    out.parent.mkdir()
    prepared(root, out, "--resume", until=".store.partial-*/progress.json")
    assert not out.exists()
    begun = time.perf_counter()
    prepared(root, out, "--resume")
    print(f"killed, then resumed ({time.perf_counter() - begun:.0f} s): {sums(out) == wanted}")


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


def measure_step(pairs: int, steps: int, folder: Path) -> None:
    """Measure steps of quickstart in turns, with all augmentations and without."""
    kinds = [{"kind": each} for each in ("shuffle", "reverse", "fim", "token_dropout", "mask",
             "span_mask", "replacement", "case", "pairs", "jitter")]  # fmt: skip
    signs = [
        "<unk>",
        "<|reverse|>",
        *(f"<|fim_{each}|>" for each in ("prefix", "suffix", "middle")),
    ]
    plain = resolve("quickstart").settings
    special = [*plain.tokenizer.special_tokens, *signs]
    given = {"tokenizer.special_tokens": special, "data.augment": kinds}
    settings = resolve("quickstart", [layer_of(given)]).settings
    session = open_session(settings, RunDirectory(folder / "run"))
    augmented, without = session.loader(), session.loader()
    without._augment = ()
    with augmented, without:
        batches = {"all": augmented.iterate(), "none": without.iterate()}
        times: dict[str, list[float]] = {"all": [], "none": []}
        for step in range(2 * pairs * steps):
            way = ("all", "none")[step // steps % 2]
            begun = time.perf_counter()
            session.stepper(step, next(batches[way]))
            times[way].append(time.perf_counter() - begun)
        bare = {
            way: statistics.median(seconds(lambda it=it: it.batch(7), 30) for _ in range(7))
            for way, it in (("all", augmented), ("none", without))
        }
    step_ms = {way: 1e3 * statistics.median(found) for way, found in times.items()}
    lost = [
        statistics.median(times["all"][at : at + steps])
        / statistics.median(times["none"][at : at + steps]) - 1
        for at in range(steps, pairs * steps, steps)
    ]  # fmt: skip
    print(f"\na step of quickstart: {step_ms['none']:.1f} ms, with ten augmentations "
          f"{step_ms['all']:.1f} ms: {statistics.median(lost):+.2%} "
          f"({min(lost):+.2%} … {max(lost):+.2%}, {len(lost)} pairs of {steps} steps)\n"
          f"a batch {1e3 * bare['none']:.2f} ms, with ten {1e3 * bare['all']:.2f} ms: "
          f"{1e3 * bare['all'] / step_ms['none']:.2%} of a step", flush=True)  # fmt: skip


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
    parser.add_argument("--step", action="store_true", help="measure steps of quickstart alone")
    parser.add_argument("--only", default="gpt2,o200k_base,bpe:4096,memory,bytes",
                        help="of a folder: tokenizers, memory, bytes")  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if options.file.is_dir():
            asked = options.only.split(",")
            names = [each for each in asked if each not in ("memory", "bytes")]
            if names:
                measure_corpus(options.file, options.pairs, names, folder)
            if "memory" in asked:
                measure_corpus_memory(options.file, folder)
            if "bytes" in asked:
                check_corpus(options.file, folder)
            return
        if options.step:
            torch.set_num_threads(os.cpu_count() or 1)
            measure_step(options.pairs, 10, folder)
            return
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
