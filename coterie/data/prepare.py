"""Documents to a token store: survey, split, encode, write; whole or not at all.

Memory stays constant whatever the input's size: documents stream through twice, once to decide the
split and once to be encoded. An interruption leaves nothing that looks like a store; what it had
written can be gone on from (see `journal`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coterie.data.documents import Document
from coterie.data.encode import Encoded, encode_pieces
from coterie.data.journal import Journal, clear_journal
from coterie.data.manifest import (
    MOST_SOURCES,
    Manifest,
    SplitChoice,
    SplitRecord,
    TokenizerRecord,
    write_manifest,
)
from coterie.data.sources import HOW_TO_SKIP, Sources
from coterie.data.split import (
    SPLITS,
    OnProgress,
    Split,
    SplitKind,
    SplitRule,
    Survey,
    split_pieces,
    split_rule,
    survey,
)
from coterie.data.store import Store, is_store
from coterie.data.streaming import Head
from coterie.data.writer import SplitWriter, dtype_for
from coterie.foundation.errors import DataError, StoreError, TokenizerError
from coterie.foundation.files import atomic_directory
from coterie.foundation.locks import own_unless_held
from coterie.foundation.places import is_taken
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import save_tokenizer
from coterie.tokenizer.workers import TokenizerProcess

SHARD_TOKENS = 1 << 26


def prepare(
    documents: Iterable[Document],
    out: Path | str,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    seed: int = 0,
    progress: OnProgress | None = None,
    workers: int | None = None,
    processes: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    replace: bool = False,
    resume: bool = False,
) -> Store:
    """Write a token store.

    Documents follow one another with `END_OF_TEXT` between them; special tokens written out in the
    text become their own numbers.

    Args:
        documents: what can be iterated twice (`Sources`, a list); an iterator is kept in memory.
        out: the folder to make.
        tokenizer: what turns text into tokens; it is saved inside the store.
        valid_fraction: share of the characters held out for validation, 0 for none.
        split: hold out whole `documents`, or the `tail` of the whole text.
        seed: of the choice of documents.
        progress: called with the stage, characters done, and characters in all where known.
        workers: threads that encode; by default one per processor.
        processes: processes that encode instead.
        shard_tokens: tokens per file.
        replace: whether a store that stands at `out` may be replaced.
        resume: whether to go on from the last whole file that an interrupted preparation of the
            same documents left, and to leave such files where this one is interrupted.

    Raises:
        DataError: the documents cannot be read, or are too few to split.
        TokenizerError: a text cannot be encoded.
        OwnedError: another process or thread writes there now.
        UserError: `out` exists, or the disk is full or not writable.
    """
    with own_unless_held(out, "preparing a store"):
        if replace and is_taken(out) and not is_store(out):
            raise DataError(f"{out} is not a token store, so it is not replaced.")
        return write_store(
            documents, out, tokenizer, valid_fraction=valid_fraction, split=split, seed=seed,
            progress=progress, by=(workers, processes), shard_tokens=shard_tokens,
            replace=replace, resume=resume,
        )  # fmt: skip


def write_store(
    documents: Iterable[Document],
    out: Path | str,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float,
    split: SplitKind | SplitRule,
    seed: int,
    progress: OnProgress | None = None,
    by: tuple[int | None, int | None] = (None, None),
    shard_tokens: int = SHARD_TOKENS,
    replace: bool,
    resume: bool = False,
    keys: Path | None = None,
) -> Store:
    """Write a token store as `prepare` does, over whatever folder stands there if `replace`.

    So many threads, or processes, encode. The survey of the documents is left in the file `keys`.
    What is held out may be decided already, by a rule instead of `split`.
    """
    if min(shard_tokens, 1 if by[1] is None else by[1]) < 1:
        raise DataError("There must be 1 process at least, and 1 token in a file.")
    if isinstance(documents, Iterator):
        documents = list(documents)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(atomic_directory(out, replace=replace, resume=resume))
        # Begun before the survey, which they need not wait for.
        processes = [stack.enter_context(TokenizerProcess(tokenizer)) for _ in range(by[1] or 0)]
        wanted = _Encodable(documents)
        while True:
            found = survey(wanted, seed, folder / "keys.partial", progress)
            if len(found.origins) > MOST_SOURCES:
                raise DataError(f"{len(found.origins):,} sources; a store has {MOST_SOURCES:,}.")
            rule = split_rule(found, split, valid_fraction)
            journal = Journal(folder, found, rule, tokenizer, shard_tokens)
            with _writers(folder, tokenizer, shard_tokens, found, journal) as writers:
                same = split_pieces(wanted, found, rule)
                pieces = encode_pieces(same, tokenizer, by[0], processes, journal.pieces)
                failures = _write(pieces, writers, journal, found.characters, progress)
                splits: dict[Split, SplitRecord] = {
                    name: writer.finish() for name, writer in writers.items()
                }
            clear_journal(folder, files=bool(failures))
            if not failures:
                break
            wanted.leave_out(failures)  # and begin anew: something of them is written already
        found.keys.replace(keys) if keys else found.keys.unlink()
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
        manifest = Manifest(
            dtype=dtype_for(tokenizer),
            shard_tokens=int(shard_tokens),
            tokenizer=record_of(tokenizer),
            split=choice_of(split, rule, valid_fraction, seed),
            splits=splits,
            sources=found.origins if len(found.origins) > 1 else (),
            **wanted.reading(),
        )
        write_manifest(folder, manifest)
    return Store(Path(out), manifest, tokenizer)


class _Encodable:
    """The documents without those that the tokenizer was found not to encode."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents
        self._sources = documents.sources if isinstance(documents, Head) else documents
        self._unusable: dict[str, str] = {}

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self._documents if document.name not in self._unusable)

    def leave_out(self, failures: dict[str, str]) -> None:
        """Leave out documents for good, given why.

        Raises:
            TokenizerError: the user did not ask for that.
        """
        sources = self._sources
        if not isinstance(sources, Sources) or sources.reading.on_error == "stop":
            name, problem = next(iter(failures.items()))
            hint = HOW_TO_SKIP if isinstance(sources, Sources) else None
            raise TokenizerError(f"{name}: {problem}.", hint=hint)
        self._unusable |= failures

    def reading(self) -> dict[str, Any]:
        """Return for the manifest how the text was cleaned, what was left out and chosen."""
        if not isinstance(self._sources, Sources):
            return {}
        report = self._sources.report
        for name, problem in self._unusable.items():
            report.add(f"{name}: {problem}", name)
        return {
            "skipped": report.skipped,
            "problems": tuple(report.problems),
            "notes": tuple(report.notes),
            "clean": tuple(each.model_dump(mode="json") for each in self._sources.clean),
        }


@contextlib.contextmanager
def _writers(
    folder: Path, tokenizer: Tokenizer, shard_tokens: int, found: Survey, journal: Journal
) -> Iterator[dict[Split, SplitWriter]]:
    """Yield the writers of both splits, which go on from what was left or begin."""

    def writers() -> dict[Split, SplitWriter]:
        return {
            name: SplitWriter(
                folder, name, tokenizer, shard_tokens, found.origins, journal.left.get(name)
            )
            for name in SPLITS
        }

    try:
        both = writers()
    except StoreError:  # what was left was changed since
        journal.forget()
        both = writers()
    try:
        yield both
    finally:
        for writer in both.values():
            writer.close()


def _write(
    pieces: Iterable[Encoded],
    writers: dict[Split, SplitWriter],
    journal: Journal,
    characters: int,
    progress: OnProgress | None,
) -> dict[str, str]:
    """Hand each encoded piece to the writer of its split; return what fails, by document."""
    done, failures = journal.characters, journal.failures
    for number, piece in enumerate(pieces, start=journal.pieces + 1):
        if piece.problem:
            failures.setdefault(piece.name, piece.problem)
        writers[piece.split].add(piece)
        done += piece.characters
        journal.note(writers, number, done)
        if progress is not None:
            progress("tokenizing", done, characters)
    return failures


def choice_of(
    asked: SplitKind | SplitRule, rule: SplitRule, valid_fraction: float, seed: int
) -> SplitChoice:
    return SplitChoice(
        asked=asked.kind if isinstance(asked, SplitRule) else asked,
        used=rule.kind,
        valid_fraction=float(valid_fraction),
        seed=int(seed),
        note=rule.note,
    )


def record_of(tokenizer: Tokenizer) -> TokenizerRecord:
    return TokenizerRecord(
        kind=tokenizer.kind,
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
    )
