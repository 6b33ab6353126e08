"""`coterie data prepare --part` and `coterie data join`: a store made in parts."""

from pathlib import Path

from coterie.api.parts import join as join_store
from coterie.cli.console import console, next_step
from coterie.data.prepare import SHARD_TOKENS
from coterie.data.split import SplitKind


def join(
    *parts: Path,
    out: Path,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    replace: bool = False,
    shard_tokens: int = SHARD_TOKENS,
) -> None:
    """Make a store of all parts of a preparation: `coterie data join PART... --out STORE`.

    Parameters
    ----------
    parts
        What `prepare --part` made, in any order: folders or URLs.
    out
        The folder to make, or a URL; it appears only when it is complete.
    valid_fraction
        Share of the characters held out for validation.
    split
        Hold out whole documents, or the tail of the whole text.
    replace
        Replace a store that stands at --out.
    shard_tokens
        Tokens in each file.
    """
    store = join_store(
        parts, out, valid_fraction=valid_fraction, split=split, replace=replace,
        shard_tokens=shard_tokens,
    )  # fmt: skip
    tokens = sum(record.tokens for record in store.manifest.splits.values())
    console.print(f"{out}: {tokens:,} tokens of {len(parts):,} parts", soft_wrap=True)
    next_step(f"coterie train quickstart data.store={out}  # train on it")
