"""`coterie tokenizer`: train byte-level BPE, and see how a tokenizer splits a text."""

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from coterie.api.data import special_tokens
from coterie.api.progress import stage_bar
from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.reading import ReadingFlags, reading_figures, tell_reading
from coterie.data.sources import Sources, texts_of
from coterie.foundation.errors import TokenizerError
from coterie.foundation.files import own_file
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer

_AS_IT_IS = ReadingFlags()
_SHOWN = 400  # tokens in the table; more are counted only


def train(
    *inputs: str,
    out: Path,
    vocab_size: int = 4096,
    min_frequency: int = 2,
    reading: ReadingFlags = _AS_IT_IS,
    special: tuple[str, ...] = (),
    replace: bool = False,
    json: bool = False,
) -> None:
    """Train byte-level BPE on texts: `coterie tokenizer train INPUT... --out FILE`.

    Parameters
    ----------
    inputs
        Files, folders, or `shakespeare`, as for `coterie data prepare`.
    out
        The file to write: an ordinary tokenizer.json.
    vocab_size
        Tokens in all, the special ones included.
    min_frequency
        How often a pair must occur to become a token.
    special
        A text that becomes one token (may be given again); `drama` means all tags of plays.
    replace
        Overwrite a file that stands at --out.
    json
        Print JSON.
    """
    settings = _settings(vocab_size, min_frequency, special)
    started = time.perf_counter()
    with own_file(out, "training a tokenizer", replace=replace), stage_bar() as tell:
        sources = reading.sources(inputs)
        tell("training", 0, None)
        tokenizer = settings.build(texts_of(sources))
        save_tokenizer(tokenizer, out)
    seconds = time.perf_counter() - started
    if json:
        emit_json({
            "file": str(out), "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint, "seconds": round(seconds, 3),
            **reading_figures(sources.report),
        })  # fmt: skip
        return
    console.print(f"{out}: {tokenizer.vocab_size:,} tokens in {seconds:.1f} s", soft_wrap=True)
    _warn(sources, vocab_size if tokenizer.vocab_size < vocab_size else 0)
    next_step(
        f'coterie tokenizer inspect {out} "some text"',
        f"coterie data prepare {' '.join(inputs)} --out STORE --tokenizer {out}",
    )


def _settings(vocab_size: int, min_frequency: int, special: tuple[str, ...]) -> BPE:
    """Return the settings of the training.

    Raises:
        TokenizerError: a size is impossible.
    """
    tokens = special_tokens(special)
    try:
        return BPE(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=tokens)
    except ValidationError as error:
        first = error.errors()[0]
        raise TokenizerError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def _warn(sources: Sources, too_many: int) -> None:
    """Say what the text did not give and what of it was left out."""
    if too_many:
        stderr.print(f"The text gave fewer than the {too_many:,} tokens asked for.")
    report = sources.report
    tell_reading(report.skipped, report.problems, report.notes, "--json lists them")


def inspect(
    tokenizer: str,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    special: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Show how a tokenizer splits a text: `coterie tokenizer inspect TOKENIZER TEXT`.

    Parameters
    ----------
    tokenizer
        gpt2, cl100k_base, o200k_base, smollm, bytes, or the path of a tokenizer or store.
    text
        The text, or `-` to read it from standard input.
    special
        A text that becomes one token (may be given again); `drama` means all tags of plays.
    json
        Print JSON.
    """
    text = sys.stdin.read() if text == "-" else text
    chosen = load_named(tokenizer, special_tokens(special))
    ids = chosen.encode(text)
    pieces = [chosen.token_bytes(token).decode("utf-8", "backslashreplace") for token in ids]
    ratio = len(text) / len(ids) if ids else None
    if json:
        emit_json({
            "tokenizer": tokenizer, "vocab_size": chosen.vocab_size,
            "fingerprint": chosen.fingerprint, "tokens": ids, "pieces": pieces,
            "characters": len(text), "characters_per_token": round(ratio, 4) if ratio else None,
            "special_tokens": chosen.special_tokens,
            "gives_back_the_text": chosen.decode(ids) == text,
        })  # fmt: skip
        return
    _show(chosen, ids, pieces)
    if ratio:
        console.print(
            f"{len(ids):,} tokens for {len(text):,} characters: {ratio:.3f} characters per token"
        )
    if chosen.decode(ids) != text:
        stderr.print("Decoding does not give this text back exactly.", style="problem")
    next_step(f"coterie data prepare INPUT --out STORE --tokenizer {tokenizer}")


def load_named(name: str, specials: tuple[str, ...] = ()) -> Tokenizer:
    """Return a tokenizer that needs no text to be built.

    Raises:
        TokenizerError: there is none, or it must be trained first.
    """
    if Path(name).exists():
        return load_tokenizer(name).extended(specials)
    settings = parse_tokenizer(name, specials)
    if isinstance(settings, BPE | Characters):
        raise TokenizerError(
            f"“{name}” has no vocabulary before it has seen a text.",
            hint="Train it first: coterie tokenizer train INPUT --out FILE; or inspect a store's.",
        )
    return settings.build()


def _show(tokenizer: Tokenizer, ids: list[int], pieces: list[str]) -> None:
    numbers = set(tokenizer.special_tokens.values())
    table = Table(box=None, pad_edge=False)
    table.add_column("token", justify="right")
    table.add_column("piece")
    for token, piece in zip(ids[:_SHOWN], pieces, strict=False):
        # Quoted, so that blanks and line breaks can be seen.
        table.add_row(str(token), Text(repr(piece), style="hint" if token in numbers else ""))
    console.print(table)
    if len(ids) > _SHOWN:
        console.print(f"… and {len(ids) - _SHOWN:,} more")
