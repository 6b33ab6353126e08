"""Preparations in parts from Python: each where its machine is, all joined at the end."""

from collections.abc import Iterable
from pathlib import Path
from typing import Unpack

from coterie.api.data import (
    ReadingOptions,
    sources_of,
    special_tokens,
    store_at,
    where_it_lies,
)
from coterie.api.progress import stage_bar
from coterie.data import Store
from coterie.data.mirror import uploaded
from coterie.data.parts import join_parts, parse_part
from coterie.data.parts import prepare_part as write_part
from coterie.data.prepare import SHARD_TOKENS
from coterie.data.split import SplitKind
from coterie.foundation.errors import UserError
from coterie.foundation.locks import own
from coterie.tokenizer.settings import LEARNING, parse_tokenizer


def prepare_part(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    part: str,
    *,
    tokenizer: str | Path = "gpt2",
    special: Iterable[str] = (),
    seed: int = 0,
    processes: int | None = None,
    replace: bool = False,
    resume: bool = False,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Tokenize one part of some texts, for `join`; see `prepare` and `data.parts`.

        coterie.prepare_part("crawl/", "part-2", "2/8")  # on any machine that sees the files

    Raises:
        UserError: as for `prepare`; or the tokenizer would be trained on the part alone.
    """
    number = parse_part(part)
    chosen = parse_tokenizer(str(tokenizer), special_tokens(special))
    if isinstance(chosen, LEARNING):
        raise UserError(
            f"A part cannot train the tokenizer “{chosen.kind}”, which all parts must share.",
            hint="Train it first: coterie tokenizer train INPUT... --out tok.json; then "
            "--tokenizer tok.json",
        )
    with (
        uploaded(out, replace, "part.json") as place,
        own(place, "preparing a part"),
        stage_bar() as tell,
    ):
        replace = (replace or place != Path(out)) and (place / "part.json").is_file()
        write_part(
            sources_of(inputs, **reading), place, chosen.build(), number, seed=seed,
            progress=tell, processes=processes, replace=replace, resume=resume,
        )  # fmt: skip
    return Path(out)


def join(
    parts: Iterable[str | Path],
    out: str | Path,
    *,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    replace: bool = False,
    shard_tokens: int = SHARD_TOKENS,
) -> Store:
    """Write the store of all parts that `prepare_part` made, the same as `prepare` writes.

    Raises:
        DataError: a part is missing, damaged, or of another preparation.
        UserError: `out` exists, is being written, or cannot be written.
    """
    with store_at(out, replace, "joining parts") as (place, replace), stage_bar() as tell:
        store = join_parts(
            list(parts), place, valid_fraction=valid_fraction, split=split, replace=replace,
            shard_tokens=shard_tokens, progress=tell,
        )  # fmt: skip
    return where_it_lies(store, out)
