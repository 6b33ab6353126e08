"""`coterie benchmark`: what this machine reaches, beside its limits and beside others."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.words import Words, read_words
from coterie.foundation.errors import UserError, nearest
from coterie.foundation.files import write_json_atomic
from coterie.foundation.runs import cache_root

if TYPE_CHECKING:
    from coterie.benchmark import DecodeTable, Side
    from coterie.generate import SamplingSettings
    from coterie.model import Decoder
    from coterie.tokenizer.interface import Tokenizer

_USAGE = "For example: coterie benchmark decode 29M --against transformers"


def decode(
    *words: str,
    against: str = "",
    batch: str = "1",
    prompt: int = 32,
    tokens: int = 64,
    rounds: int = 7,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure greedy decoding: `coterie benchmark decode [TARGET] [key=value ...]`.

    TARGET is a run, or the size of an untrained mixture (2M, 17M, 29M, 98M active parameters;
    17M if none is named). Keys are those of `sample` (weights, cache, compute, …). Prints what the
    machine can do at most, tokens per second as a share of that, the time to the first token, and
    how much faster we are than each peer: the median over rounds of turns, smallest and largest.

    Parameters
    ----------
    words
        The run or size, and settings as key=value.
    against
        Peers, with commas: transformers, transformers-compiled, llama.cpp; int8, int4 (ourselves).
    batch
        How many texts to decode together, with commas: 1,4,16,64.
    prompt
        Tokens before.
    tokens
        Tokens to decode for each text.
    rounds
        Rounds of turns.
    out
        Where to save the table; by default in the cache folder.
    json
        Print JSON.
    """
    from coterie.benchmark import benchmark_decode, measure_ceilings

    said = read_words(words)
    peers, batches = _peers(against), _batches(batch)
    decoder, tokenizer, sampling = _model(said)
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(decoder, tokenizer, sampling, peers, Path(folder))
        ceilings = measure_ceilings()
        table = benchmark_decode(
            decoder, sides, ceilings, batches=batches, prompt=prompt, tokens=tokens,
            rounds=rounds, tell=lambda what: stderr.print(what, style="dim"),
        )  # fmt: skip
    saved = out or cache_root() / "benchmarks" / f"decode-{time.strftime('%Y%m%d-%H%M%S')}.json"
    values = {
        "measured": time.strftime("%F %T"), **_machine(),
        "target": (said.targets or ("17M",))[0], "sampling": sampling.model_dump(mode="json"),
        **table.as_json(),
    }  # fmt: skip
    saved.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(saved, values)
    if json:
        emit_json(values)
    else:
        _print(table, saved, alone=not peers)


def _peers(text: str) -> list[str]:
    """Return the peers that a word names.

    Raises:
        UserError: there is no such peer.
    """
    from coterie.benchmark import PEERS

    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in PEERS:
            raise UserError(f"There is no peer “{name}”; {nearest(name, PEERS)}", hint=_USAGE)
    return found


def _sides(
    decoder: Decoder,
    tokenizer: Tokenizer,
    sampling: SamplingSettings,
    peers: list[str],
    folder: Path,
) -> list[Side]:
    """Return ourselves, and each way of each peer."""
    import torch

    from coterie.benchmark import PEERS, Side
    from coterie.benchmark.decode import our_side

    sides = [our_side(decoder, tokenizer, sampling)]
    for name in peers:
        place = folder / name
        place.mkdir()
        ways = PEERS[name].ways(decoder, tokenizer, place, torch.get_num_threads())
        sides += [Side(each, way) for each, way in ways.items()]
    return sides


def _batches(text: str) -> list[int]:
    """Return the batch sizes that a word names.

    Raises:
        UserError: one is no number above 0.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in found):
        raise UserError(f"--batch takes whole numbers with commas, not “{text}”.", hint=_USAGE)
    return [int(part) for part in found]


def _machine() -> dict[str, Any]:
    import torch

    from coterie.train.machine import describe_machine

    return {"machine": describe_machine(torch.device("cpu"))}


def _model(said: Words) -> tuple[Decoder, Tokenizer, SamplingSettings]:
    """Return the model to measure, its tokenizer, and how to sample."""
    from coterie.api.model import load
    from coterie.benchmark import SIZES, standard_model
    from coterie.foundation.layers import load_settings
    from coterie.generate import SamplingSettings

    target = (said.targets or ("17M",))[0]
    if len(said.targets) > 1:
        raise UserError("One run or size at a time.", hint=_USAGE)
    if target in SIZES:
        hint = "Run: coterie settings sample  to see the keys."
        return *standard_model(target), load_settings(
            SamplingSettings, said.layers(), hint
        ).settings
    model = load(target, device="cpu")
    return model.decoder, model.tokenizer, model.sampling(*said.layers())


def _print(table: DecodeTable, saved: Path, *, alone: bool) -> None:
    """Print the table and what bounds it."""
    top = table.ceilings
    console.print(
        f"{table.parameters:,} parameters, {table.active:,} active, float32; "
        f"{table.tokens} tokens after {table.prompt}, {table.rounds} rounds in turns\n"
        f"This machine, {top.threads} threads: reads {top.read / 1e9:.1f} GB/s "
        f"(torch's matrix-vector product {top.matvec / 1e9:.1f}), "
        f"copies {top.copy / 1e9:.1f} GB/s, "
        f"multiplies {top.products / 1e9:,.0f} GFLOP/s in float32, "
        f"{top.products_bfloat16 / 1e9:,.0f} in bfloat16\n"
        f"Bound of one stream by reading the active weights: {table.bound:,.0f} tokens/s\n",
        soft_wrap=True,
    )
    from coterie.cli.counting import wide

    shown = Table(box=None, pad_edge=False)
    for column in ("", "batch", "tokens/s", "of bound", "first token", "we are", "range", "same"):
        shown.add_column(column, justify="left" if not column else "right")
    for row in table.rows:
        middle, least, most = row.slower
        shown.add_row(
            row.name, str(row.batch), f"{row.rate:,.1f}",
            "" if row.of_bound is None else f"{row.of_bound:.0%}", f"{row.first * 1e3:,.0f} ms",
            f"{middle:.2f}×", f"{least:.2f}–{most:.2f}", f"{row.same}/{table.tokens}",
        )  # fmt: skip
    wide(console).print(shown)
    console.print(f"\nSaved {saved}", soft_wrap=True)
    if alone:
        next_step("coterie benchmark decode --against transformers  # beside a peer")
