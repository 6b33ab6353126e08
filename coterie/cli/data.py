"""`coterie data`: texts to token stores, and a look at what is in them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from coterie.api.data import prepare as prepare_store
from coterie.api.parts import prepare_part
from coterie.api.progress import stage_bar
from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.reading import ReadingFlags, tell_reading
from coterie.data.cache import settings_of
from coterie.data.prepare import SHARD_TOKENS
from coterie.data.split import SplitKind
from coterie.data.store import Store, open_store
from coterie.data.verify import verify_store
from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic

_SAMPLE_TOKENS = 80
_AS_IT_IS = ReadingFlags()


@Parameter(name="*")
@dataclass(frozen=True)
class WritingFlags:
    """How a store is written; see `data.prepare`."""

    replace: Annotated[bool, Parameter(help="Replace a store that stands at --out.")] = False
    processes: Annotated[
        int | None,
        Parameter(help="Processes that tokenize, instead of threads; the store is the same."),
    ] = None
    resume: Annotated[
        bool,
        Parameter(help="Go on from the last whole file that an interruption left of the same."),
    ] = False
    shard_tokens: Annotated[int, Parameter(help="Tokens in each file.")] = SHARD_TOKENS


_AS_EVER = WritingFlags()


def prepare(
    *inputs: str,
    out: Path,
    tokenizer: str = "gpt2",
    reading: ReadingFlags = _AS_IT_IS,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    seed: int = 0,
    special: tuple[str, ...] = (),
    writing: WritingFlags = _AS_EVER,
    ledger: Path | None = None,
    part: str | None = None,
    json: bool = False,
) -> None:
    """Tokenize texts into a store: `coterie data prepare INPUT... --out STORE`.

    Parameters
    ----------
    inputs
        Files (text, Markdown, JSONL, CSV, Parquet, Arrow; also .gz, .xz, .bz2, .zst), folders of
        such files, patterns ('novels/**/*.md'), git:REPOSITORY, hf:DATASET, URLs (s3://…), or
        `shakespeare` for the corpus that is shipped.
    out
        The folder to make; it appears only when it is complete.
    tokenizer
        gpt2, cl100k_base, o200k_base, smollm, characters, bytes, bpe:4096 (trained here), or a
        path.
    valid_fraction
        Share of the characters held out for validation.
    split
        Hold out whole documents, or the tail of the whole text.
    seed
        Of the choice of documents held out.
    special
        A text that becomes one token (may be given again); `drama` means all tags of plays.
    ledger
        A file for a line about each row and file that was left out.
    part
        2/8: only the second of eight parts of the files; `coterie data join` makes a store of all.
    json
        Print JSON.
    """
    if part is not None:
        _prepare_part(inputs, out, part, tokenizer, special, seed, writing, reading)
        return
    started = time.perf_counter()
    store = prepare_store(
        inputs, out, tokenizer=tokenizer, special=special, valid_fraction=valid_fraction,
        split=split, seed=seed, **asdict(writing), **reading.options(),
    )  # fmt: skip
    if ledger is not None:
        write_text_atomic(ledger, "".join(f"{line}\n" for line in store.manifest.problems))
    if json:
        emit_json(describe(store))
        return
    _show(store)
    stderr.print(f"Prepared in {time.perf_counter() - started:.1f} s.")
    train = f"coterie train quickstart {settings_of(out)}"
    next_step(f"{train}  # train on it", f"coterie data verify {out}")


def _prepare_part(
    inputs: tuple[str, ...],
    out: Path,
    part: str,
    tokenizer: str,
    special: tuple[str, ...],
    seed: int,
    writing: WritingFlags,
    reading: ReadingFlags,
) -> None:
    prepare_part(
        inputs, out, part, tokenizer=tokenizer, special=special, seed=seed,
        processes=writing.processes, replace=writing.replace, resume=writing.resume,
        **reading.options(),
    )  # fmt: skip
    next_step("coterie data join PART... --out STORE  # when all parts are there")


def inspect(store: Path, *, sample: int = _SAMPLE_TOKENS, json: bool = False) -> None:
    """Show what a store holds: `coterie data inspect STORE`.

    Parameters
    ----------
    store
        The store's folder.
    sample
        How many of the first tokens to show as text.
    json
        Print JSON.
    """
    opened = open_store(store)
    texts = {
        name: opened.tokenizer.decode(opened.tokens(name)[: max(sample, 0)])
        for name in opened.manifest.splits
    }
    if json:
        emit_json(describe(opened) | {"sample": texts})
        return
    _show(opened)
    for name, text in texts.items():
        if text:
            console.print(f"\n{name} begins:", style="heading")
            console.print(text, soft_wrap=True)
    next_step(f"coterie data verify {store}")


def verify(*stores: Path, quick: bool = False, json: bool = False) -> int:
    """Check stores and all they claim: `coterie data verify STORE...`; exits with 2 if unsound.

    Parameters
    ----------
    stores
        The stores' folders.
    quick
        Leave out what takes longest: decoding the tokens and encoding their text again.
    json
        Print JSON.
    """
    if not stores:
        raise UserError("Which store? None was named.", hint="coterie data verify STORE...")
    found = {}
    for store in stores:
        with stage_bar() as tell:
            found[str(store)] = verify_store(store, texts=not quick, progress=tell)
    if json:
        emit_json({name: {"sound": not problems, "problems": problems}
                   for name, problems in found.items()})  # fmt: skip
    else:
        for name, problems in found.items():
            _show_verdict(name, problems)
    return 2 if any(found.values()) else 0


def describe(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    splits = {}
    for name, record in manifest.splits.items():
        splits[name] = {
            "tokens": record.tokens,
            "documents": record.documents,
            "characters": record.characters,
            "bytes": record.bytes,
            "unknown": record.unknown,
            "shards": len(record.shards),
            "sources": {
                source: part.model_dump()
                for source, part in zip(manifest.sources, record.sources, strict=True)
            },
            "characters_per_token": _round(store.characters_per_token(name)),
        }
    return {
        "store": str(store.path),
        "fingerprint": store.fingerprint,
        "dtype": manifest.dtype,
        "tokenizer": manifest.tokenizer.model_dump(),
        "split": manifest.split.model_dump(),
        "splits": splits,
        "skipped": manifest.skipped,
        "problems": list(manifest.problems),
        "notes": list(manifest.notes),
        "clean": list(manifest.clean),
    }


def _show(store: Store) -> None:
    """Print a store's figures as a table, and what the reader should know about them."""
    figures = describe(store)
    record = store.manifest.tokenizer
    console.print(
        f"{store.path}: {record.kind} tokenizer of {record.vocab_size:,} tokens "
        f"({figures['dtype']}, {record.fingerprint[:12]})",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("split")
    for column in ("documents", "characters", "tokens", "characters/token"):
        table.add_column(column, justify="right")
    for name, part in figures["splits"].items():
        ratio = part["characters_per_token"]
        table.add_row(
            name, f"{part['documents']:,}", f"{part['characters']:,}", f"{part['tokens']:,}",
            f"{ratio:.3f}" if ratio else "–",
        )  # fmt: skip
        for source, share in part["sources"].items():
            table.add_row(
                f"  {source}", f"{share['documents']:,}", "", f"{share['tokens']:,}", "",
            )  # fmt: skip
    console.print(table)
    choice = store.manifest.split
    if choice.note:
        stderr.print(f"Note: {choice.note}.", soft_wrap=True)
    unknown = sum(part["unknown"] for part in figures["splits"].values())
    if unknown:
        stderr.print(f"{unknown:,} tokens stand for what the vocabulary cannot say.")
    everything = f"coterie data inspect {store.path} --json"
    tell_reading(figures["skipped"], figures["problems"], figures["notes"], everything)


def _show_verdict(name: str, problems: list[str]) -> None:
    if not problems:
        console.print(Text.assemble(("sound", "good"), f"  {name}"), soft_wrap=True)
        return
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    console.print(Text.assemble(("UNSOUND", "problem"), f"  {name}: {count}"), soft_wrap=True)
    for problem in problems:
        console.print(f"  {problem}", soft_wrap=True)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
