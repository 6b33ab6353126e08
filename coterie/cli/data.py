"""`coterie data`: texts to token stores, and a look at what is in them."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from coterie.api.data import merge as merge_stores
from coterie.api.data import prepare as prepare_store
from coterie.api.parts import prepare_part
from coterie.api.progress import stage_bar
from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.reading import ReadingFlags
from coterie.cli.stores import describe, samples, show_store, show_verdict, verdict
from coterie.data.examine import examine_store
from coterie.data.merged import open_store
from coterie.data.mirror import url_of
from coterie.data.prepare import SHARD_TOKENS
from coterie.data.split import SplitKind
from coterie.data.writing import report_file
from coterie.foundation.errors import UserError

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
        The folder to make, or a URL (s3://…); it appears only when it is complete.
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
        _require_usual((valid_fraction, split, ledger, json))
        _prepare_part(inputs, out, part, tokenizer, special, seed, writing, reading)
        return
    started = time.perf_counter()
    with report_file(ledger, out) as rows:
        store = prepare_store(
            inputs, out, tokenizer=tokenizer, special=special, valid_fraction=valid_fraction,
            split=split, seed=seed, **asdict(writing), **reading.options(),
        )  # fmt: skip
        if rows is not None:
            rows.write_text("".join(f"{line}\n" for line in store.manifest.problems), "utf-8")
    if json:
        emit_json(describe(store))
        return
    show_store(store)
    stderr.print(f"Prepared in {time.perf_counter() - started:.1f} s.")
    _tell_next(out)


def merge(
    *stores: Path,
    out: Path,
    strategy: Literal["equal", "proportional", "weighted", "temperature"] | None = None,
    weights: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    temperature: float | None = None,
    epochs_at_most: float | None = None,
    copy: bool = False,
    replace: bool = False,
    json: bool = False,
) -> None:
    """Mix stores in a ratio: `coterie data merge STORE STORE... --out MERGED`.

    No token is copied: the merged store names the others, and training reads their rows in turn.

    Parameters
    ----------
    stores
        The stores' folders or URLs, made with the same tokenizer.
    out
        The folder to make, or a URL in the same file system.
    strategy
        proportional (the default): by their tokens; equal; weighted; temperature: between them.
    weights
        Of the stores in order (0.7 0.3) or by name (verse=0.7 prose=0.3).
    temperature
        1: proportional; the higher, the more equal.
    epochs_at_most
        How many times a store is read at most; the others then go on without it.
    copy
        Copy the stores into the folder, so that it stands alone.
    replace
        Replace a store that stands at --out.
    json
        Print JSON.
    """
    chosen = strategy or ("weighted" if weights else "temperature" if temperature else None)
    merged = merge_stores(
        stores, out, strategy=chosen or "proportional", weights=_weights(weights),
        temperature=temperature, epochs_at_most=epochs_at_most, copy=copy, replace=replace,
    )  # fmt: skip
    if json:
        emit_json(describe(merged))
        return
    show_store(merged)
    _tell_next(out)


def _tell_next(out: Path) -> None:
    store = url_of(out) or out
    train = f"coterie train quickstart data.store={store}  # train on it"
    next_step(train, f"coterie data verify {store}")


def _weights(words: tuple[str, ...]) -> list[float] | dict[str, float] | None:
    """Return weights that were given as numbers, or as NAME=NUMBER."""
    pairs = [word.rpartition("=") for each in words for word in each.split(",")]
    try:
        numbers = [float(number) for _, _, number in pairs]
    except ValueError as error:
        raise UserError(
            f"{error}: a weight is a number, or NAME=NUMBER.", hint="--weights 0.7 0.3"
        ) from error
    names = [name for name, _, _ in pairs]
    if any(names) and not all(names):
        raise UserError("Give all weights by name, or none.", hint="--weights verse=0.7 prose=0.3")
    return dict(zip(names, numbers, strict=True)) if any(names) else numbers or None


def _require_usual(given: tuple[float, str, Path | None, bool]) -> None:
    """Refuse flags of `prepare` that mean nothing for a part."""
    if given != (0.1, "documents", None, False):
        raise UserError(
            "--part takes no --valid-fraction, --split, --ledger and --json: what is held out is "
            "decided when all parts are there.",
            hint="coterie data join PART... --out STORE --valid-fraction 0.05",
        )


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
        The store's folder, or its URL.
    sample
        How many of the first tokens to show as text.
    json
        Print JSON.
    """
    opened = open_store(store)
    shown = samples(opened, max(sample, 0))
    if json:
        texts = {name: {split: text.plain for split, text in each.items()}
                 for name, each in shown.items()}  # fmt: skip
        only = texts if len(opened.sources) > 1 else next(iter(texts.values()))
        emit_json(describe(opened) | {"sample": only})
        return
    show_store(opened)
    for name, each in shown.items():
        for split, text in each.items():
            if text:
                where = f"{name}, {split}" if len(shown) > 1 else split
                console.print(f"\n{where} begins:", style="heading")
                console.print(text, soft_wrap=True)
    next_step(f"coterie data verify {store}")


def verify(*stores: Path, quick: bool = False, json: bool = False) -> int:
    """Check stores and all they claim: `coterie data verify STORE...`; exits with 2 if unsound.

    Parameters
    ----------
    stores
        The stores' folders, or their URLs.
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
            found[str(store)] = examine_store(store, texts=not quick, progress=tell)
    if json:
        emit_json({name: verdict(each) for name, each in found.items()})
    else:
        for name, each in found.items():
            show_verdict(name, each)
    return 2 if any(each.problems for each in found.values()) else 0
