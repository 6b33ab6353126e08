"""What a token store looks like, as a tree for people and as JSON."""

from dataclasses import asdict
from typing import Any

import numpy as np
from rich.text import Text
from rich.tree import Tree

from coterie.cli.console import console, stderr
from coterie.cli.reading import tell_reading
from coterie.data.examine import Examination
from coterie.data.merged import AnyStore, MergedStore
from coterie.data.mix.ratio import Ratio
from coterie.data.store import Store
from coterie.foundation.printable import printable
from coterie.visualise.panel import BARS

_MARK = "magenta"
_BOUNDARY = "bold cyan"


def samples(store: AnyStore, tokens: int) -> dict[str, dict[str, Text]]:
    """Return how each split of each source begins, its special tokens and boundaries coloured."""
    return {
        name: {split: _coloured(each, split, tokens) for split in each.manifest.splits}
        for name, each in store.sources.items()
    }


def _coloured(store: Store, split: str, most: int) -> Text:
    tokenizer = store.tokenizer
    text, run = Text(), []
    special = set(tokenizer.special_tokens.values())
    for token in np.asarray(store.tokens(split)[:most]).tolist():
        if token not in special:
            run.append(token)
            continue
        text.append(tokenizer.decode(run))
        style = _BOUNDARY if token == tokenizer.end_of_text else _MARK
        text.append(tokenizer.decode([token]), style)
        run = []
    return text.append(tokenizer.decode(run))


def describe(store: AnyStore) -> dict[str, Any]:
    """Return everything that is known of a store without reading it, as JSON values."""
    if isinstance(store, Store):
        return _plain(store)
    mix = store.mix
    ratio = {}
    if isinstance(mix, Ratio):
        ratio = dict(zip(store.sources, mix.ratio(store.to_mix()), strict=True))
    first = next(iter(store.sources.values())).manifest
    return {
        "store": str(store.path),
        "fingerprint": store.fingerprint,
        "dtype": first.dtype,
        "tokenizer": first.tokenizer.model_dump(),
        "mix": None if mix is None else mix.model_dump(mode="json"),
        "shares": ratio,
        "sources": {name: _plain(each) for name, each in store.sources.items()},
    }


def _plain(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    splits = {}
    for name, record in manifest.splits.items():
        per_token = store.characters_per_token(name)
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
            "lengths": store.tokens(name).length_counts(),
            "characters_per_token": None if per_token is None else round(per_token, 4),
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


def show_store(store: AnyStore) -> None:
    """Print a store as a tree, and what the reader should know about it."""
    first = next(iter(store.sources.values()))
    record = first.manifest.tokenizer
    told = (f"{store.path}: {record.kind} tokenizer of {record.vocab_size:,} tokens "
            f"({first.manifest.dtype}, {record.fingerprint[:12]})")  # fmt: skip
    tree = Tree(Text(told), guide_style="dim")
    if isinstance(store, MergedStore):
        figures = describe(store)
        mix = figures["mix"] or {"kind": "proportional"}
        limit = mix.get("epochs_at_most")
        most = "" if limit is None else f", each at most {limit:g} times"
        tree.add(Text(f"mixed: {mix['kind']}{most}"))
        for name, each in store.sources.items():
            share = f"  {figures['shares'][name]:.2%}" if name in figures["shares"] else ""
            label = Text.assemble(
                (printable(name, keep=""), "heading"), share,
                (f"  {each.fingerprint[:12]}  {printable(str(each.path), keep='')}", "dim"),
            )  # fmt: skip
            _add_splits(tree.add(label), each)
    else:
        tree.add(Text(f"fingerprint {store.fingerprint[:12]}", "dim"))
        _add_splits(tree, store)
    console.print(tree)
    for each in store.sources.values():
        _tell_notes(each)


def _add_splits(tree: Tree, store: Store) -> None:
    """Add the splits with their sizes and their shares of the tokens."""
    total = sum(record.tokens for record in store.manifest.splits.values())
    for name, record in store.manifest.splits.items():
        ratio = store.characters_per_token(name)
        tree.add(Text.assemble(
            f"{name:<5} ", (f"{record.tokens:>13,} tokens", "bold"),
            f"  {record.tokens / max(total, 1):>6.1%}  {record.documents:,} documents  "
            f"{record.characters:,} characters",
            f"  {ratio:.3f} characters/token" if ratio else "",
            (_lengths(store.tokens(name).length_counts()), "dim"),
        ))  # fmt: skip


def _lengths(counts: list[int]) -> str:
    """Return how long documents are, as bars from the shortest on, each twice as long."""
    there = np.flatnonzero(counts)
    if len(there) < 2:
        return ""
    first, last = int(there[0]), int(there[-1])
    top = len(BARS) - 1
    bars = "".join(
        BARS[-(-count * top // max(counts))] if count else " " for count in counts[first : last + 1]
    )
    return f"  {1 << first:,} {bars} {(2 << last) - 1:,} tokens long"


def _tell_notes(store: Store) -> None:
    manifest = store.manifest
    if manifest.split.note:
        stderr.print(f"Note: {manifest.split.note}.", soft_wrap=True)
    unknown = sum(record.unknown for record in manifest.splits.values())
    if unknown:
        stderr.print(f"{unknown:,} tokens stand for what the vocabulary cannot say.")
    everything = f"coterie data inspect {store.path} --json"
    tell_reading(manifest.skipped, list(manifest.problems), list(manifest.notes), everything)


def verdict(found: Examination) -> dict[str, Any]:
    """Return what was found as JSON values."""
    figures: dict[str, Any] = {"sound": not found.problems, "problems": found.problems}
    if found.parts:
        figures["parts"] = found.parts
    for name in ("mixture", "leak"):
        if (each := getattr(found, name)) is not None:
            figures[name] = asdict(each)
    return figures


def show_verdict(name: str, found: Examination) -> None:
    """Print whether a store is sound, its problems, and what may interest in it."""
    if not found.problems:
        console.print(Text.assemble(("sound", "good"), f"  {name}"), soft_wrap=True)
    else:
        several = f"{len(found.problems)} problem{'s' * (len(found.problems) > 1)}"
        console.print(Text.assemble(("UNSOUND", "problem"), f"  {name}: {several}"), soft_wrap=True)
    for problem in found.problems:
        console.print(f"  {problem}", soft_wrap=True)
    if (mixture := found.mixture) is not None:
        rows = f"of the first {mixture.rows:,} rows"
        for source, asked in mixture.asked.items():
            told = f"  {source}: {mixture.achieved[source]:.4%} {rows}, {asked:.4%} asked for"
            console.print(told, soft_wrap=True)
        console.print(f"  at most {mixture.distance:.2f} rows from the ratio", soft_wrap=True)
    if (leak := found.leak) is not None and leak.documents:
        console.print(
            f"  {leak.equal:,} of {leak.documents:,} validation documents are in the training text "
            f"too, {leak.near:,} nearly; {leak.share:.2%} of their {leak.n}-grams are",
            soft_wrap=True,
        )
