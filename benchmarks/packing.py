"""What each packing wastes and how fast it trains: empty places, documents cut, targets a second.

    python benchmarks/packing.py INPUT... [--context 256] [--rows 8] [--pairs 9] [--lines 30]

INPUT is read as `coterie data prepare` reads it; with --lines it is cut into documents of 1 to so
many lines, drawn at random. The tokenizer has 1,024 BPE tokens trained on it. For an epoch of each
packing: the rows; the share of their places that hold padding, and that have no target at all; the
share of documents that are read in more than one piece; the mean number of tokens that a target
sees. Beside them the usual ways without packing: a row for each document, what is longer cut into
rows, padded to the context or to the longest row of each batch in random order. Steps of a small
decoder (4 layers of width 128) in turns; printed are targets a second and the median and range of
the ratios to `stream`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.data import BatchLoader, Document, Sources, TokenArray, prepare
from coterie.data.documents import whole_documents
from coterie.data.packing import PADDING, Isolated, Stream, Whole
from coterie.model import Decoder, DecoderSettings
from coterie.model.context import ForwardContext
from coterie.tokenizer.settings import parse_tokenizer

PACKINGS = {
    "stream": Stream(windows="once"),
    "isolated": Isolated(windows="once"),
    "whole": Whole(),
}


def in_lines(documents: list[Document], most: int) -> Iterator[Document]:
    """Cut documents into some of 1 to so many lines."""
    draw = random.Random(0)
    for document in documents:
        lines = document.text.splitlines(keepends=True)
        while lines:
            count = draw.randint(1, most)
            yield Document(document.name, "".join(lines[:count]))
            del lines[:count]


def decoder_of(context: int) -> Decoder:
    torch.manual_seed(0)
    return DecoderSettings.model_validate({
        "layers": 4, "width": 128, "context": context, "vocab_size": 1024, "position": "rotary",
        "attention": {"kind": "grouped", "heads": 4},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 352}},
    }).build()  # fmt: skip


def unpacked(tokens: TokenArray, context: int, size: int, *, to_longest: bool) -> list[TokenBatch]:
    """Return an epoch of one document per row, in random order."""
    ends = np.append(tokens.starts[1:], len(tokens))
    parts = [
        tokens[at : min(at + context + 1, end)].astype(np.int64)
        for start, end in zip(tokens.starts, ends, strict=True)
        for at in range(start, max(end - 1, start), context)
    ]
    parts = [parts[place] for place in np.random.default_rng(0).permutation(len(parts))]
    batches = []
    for at in range(0, len(parts), size):
        rows = parts[at : at + size]
        width = max(map(len, rows)) - 1 if to_longest else context
        inputs = torch.zeros(len(rows), width, dtype=torch.int64)
        targets = torch.full_like(inputs, IGNORE)
        for number, row in enumerate(rows):
            inputs[number, : len(row) - 1] = torch.from_numpy(row[:-1])
            targets[number, : len(row) - 1] = torch.from_numpy(row[1:])
        batches.append(TokenBatch(inputs, targets))
    return batches


def packed(tokens: TokenArray, context: int, size: int, packing) -> list[TokenBatch]:
    loader = BatchLoader(tokens, context, size, seed=1, packing=packing)
    return [loader.batch(step) for step in range(-(-loader._mixed[context]._rows[0].once // size))]


def figures(batches: list[TokenBatch], documents: int) -> tuple[int, float, float, float]:
    """Return rows, the shares of places with padding and without target, and tokens seen."""
    places = sum(batch.tokens.numel() for batch in batches)
    targets = sum(int(batch.valid.sum()) for batch in batches)
    padding, seen = 0, 0.0
    for batch in batches:
        column = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
        begins = torch.zeros_like(column)
        held = batch.valid
        if batch.documents is not None:
            held = batch.documents != PADDING
            fresh = torch.zeros_like(held)
            fresh[:, 1:] = batch.documents[:, 1:] != batch.documents[:, :-1]
            begins = (column * fresh).cummax(1).values
        padding += int((~held).sum())
        seen += float((column - begins + 1)[batch.valid].sum())
    return (
        sum(len(b.tokens) for b in batches),
        padding / places,
        1 - targets / places,
        seen / targets,
    )


def pieces(batches: list[TokenBatch], documents: int) -> float:
    """Return the share of documents that an epoch reads in more than one piece."""
    owners = [
        np.array([owner for owner, _ in itertools.groupby(row.tolist()) if owner != PADDING])
        for batch in batches
        for row in batch.documents
    ]
    return float((np.bincount(np.concatenate(owners), minlength=documents) > 1).mean())


def rate(decoder: Decoder, optimizer, batches: Iterator[TokenBatch], steps: int) -> float:
    """Return the targets that some steps learn from in a second."""
    count, begun = 0, time.perf_counter()
    for _ in range(steps):
        batch = next(batches)
        losses = decoder(batch.tokens, batch.targets, ForwardContext.of(batch)).losses
        (losses.sum() / batch.total_weight()).backward()
        optimizer.step()
        optimizer.zero_grad()
        count += int(batch.total_weight())
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--lines", type=int, help="cut it into documents of 1 to so many lines")
    options = parser.parse_args()
    context, size = options.context, options.rows
    documents = list(whole_documents(Sources(options.inputs)))
    if options.lines:
        documents = list(in_lines(documents, options.lines))
    tokenizer = parse_tokenizer("bpe:1024").build([each.text for each in documents])
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(documents, Path(folder) / "store", tokenizer, valid_fraction=0)
        tokens = store.tokens("train")
        count = len(tokens.starts)
        lengths = np.diff(tokens.starts, append=len(tokens))
        few, middle, many = np.quantile(lengths, (0.1, 0.5, 0.9))
        print(f"{count:,} documents of {middle:.0f} tokens in the median (a tenth below {few:.0f}, "
              f"above {many:.0f}), rows of {context}")  # fmt: skip
        epochs = {name: packed(tokens, context, size, each) for name, each in PACKINGS.items()}
        cut = {name: pieces(epochs[name], count) for name in ("isolated", "whole")}
        cut["stream"] = cut["isolated"]  # the same windows
        cut["a row each"] = cut["to the longest"] = float((lengths - 1 > context).mean())
        epochs["a row each"] = unpacked(tokens, context, size, to_longest=False)
        epochs["to the longest"] = unpacked(tokens, context, size, to_longest=True)
        decoder = decoder_of(context)
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-4)
        stream = {name: itertools.cycle(each) for name, each in epochs.items()}
        rates: dict[str, list[float]] = {name: [] for name in epochs}
        for _ in range(options.pairs + 1):
            for name in epochs:
                rates[name].append(rate(decoder, optimizer, stream[name], options.steps))
        print(f"{'':16}{'rows':>8}{'padding':>9}{'no target':>11}{'documents cut':>15}{'seen':>8}"
              f"{'targets/s':>11}{'to stream':>11}")  # fmt: skip
        for name, batches in epochs.items():
            rows, padding, none, seen = figures(batches, count)
            ratios = [a / b for a, b in zip(rates[name], rates["stream"], strict=True)][1:]
            print(f"{name:16}{rows:8,}{padding:9.1%}{none:11.1%}{cut[name]:15.1%}{seen:8.0f}"
                  f"{statistics.median(rates[name][1:]):11,.0f}{statistics.median(ratios):9.2f}  "
                  f"({min(ratios):.2f}–{max(ratios):.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
