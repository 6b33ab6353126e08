"""Pieces of text to token numbers, in order, on several threads or processes, in bounded memory.

Long documents are cut only where the tokenizer says that cutting changes nothing. The tokenizers'
cores work without Python's lock, so threads are enough for a few cores.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np

from coterie.data.documents import Document, in_batches, joined
from coterie.data.split import Piece, Split
from coterie.tokenizer.cuts import CUT_REACH
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.workers import TokenizerProcess, count_tokens

CUT_AT = 1 << 18  # characters after which a cut is looked for
_JOB = 1 << 17  # characters that make a job worth handing to a thread
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """One piece as tokens, uint32 [T], with what is counted about its text.

    With a `problem` it stands for the document `name`, which cannot be encoded.
    """

    split: Split
    starts: bool
    tokens: np.ndarray
    characters: int
    bytes: int
    unknown: int
    name: str = ""
    problem: str = ""
    origin: str = ""


def encode_pieces(
    pieces: Iterable[Piece],
    tokenizer: Tokenizer,
    workers: int | None = None,
    processes: Sequence[TokenizerProcess] = (),
    done: int = 0,
) -> Iterator[Encoded]:
    """Yield the tokens of pieces in order, exactly those of the uncut documents.

    A document that cannot be encoded gives an `Encoded` with a problem, besides what may have been
    encoded of it.

    Args:
        workers: threads; by default one per processor, at most 8.
        processes: what encodes instead of threads.
        done: how many of the first pieces, as cut here, are left out.
    """
    left = itertools.islice(cut_pieces(pieces, tokenizer), done, None)
    jobs = in_batches(left, _JOB)
    workers = len(processes) or workers or min(os.cpu_count() or 1, _MOST_THREADS)
    if workers == 1 and not processes:
        for job in jobs:
            yield from _encode(job, tokenizer)
        return
    waiting: deque[Future[list[Encoded]]] = deque()
    with contextlib.ExitStack() as stack:
        idle: SimpleQueue[TokenizerProcess] = SimpleQueue()
        for process in processes:
            idle.put(process)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="coterie-encode")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for job in jobs:
            waiting.append(pool.submit(_encode, job, tokenizer, idle if processes else None))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def cut_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yield the same text in pieces whose tokens, one after the other, are those of the whole.

    A document that has no place to be cut for too long gives a piece with a problem.
    """
    held = Piece("train", Document("", ""))
    for piece in pieces:
        if piece.starts or piece.split != held.split:
            if held.text:
                yield held
            held = piece
        elif held.problem:
            continue
        else:
            held = replace(held, document=joined([held.document, piece.document]))
        begun, whole = 0, held.document
        for end in [*_cuts(whole.text, tokenizer), None]:
            if len(whole.text[begun:end]) > tokenizer.longest_word:
                held = Piece(held.split, replace(whole, text="", spans=()), _too_long(tokenizer))
                yield held
                break
            if end is not None:
                yield replace(held, document=whole.cut(begun, end))
                begun = end
        else:
            held = replace(held, document=whole.cut(begun)) if begun else held
    if held.text:
        yield held


def _cuts(text: str, tokenizer: Tokenizer) -> Iterator[int]:
    """Yield rising places where a text may be cut, about `CUT_AT` characters apart."""
    begun, near = 0, CUT_AT
    while near < len(text):
        place = tokenizer.cut(text, near)
        if place is not None and place > begun:
            yield place
            begun, near = place, place + CUT_AT
        else:
            near += CUT_REACH


def _too_long(tokenizer: Tokenizer) -> str:
    """Return what is wrong with a text that would have to be encoded as a whole."""
    most = f"{tokenizer.longest_word:,} characters"
    if tokenizer.splits_words:
        return (
            f"a word (a run without blanks and signs) of more than {most}; the tokenizers “bytes” "
            "and “characters” take it"
        )
    return (
        f"more than {most} in one document, which this tokenizer must encode as a whole; divide it"
    )


def _encode(
    pieces: list[Piece], tokenizer: Tokenizer, idle: SimpleQueue[TokenizerProcess] | None = None
) -> list[Encoded]:
    """Encode pieces here, or in a process that is idle."""
    texts = [piece.text for piece in pieces]  # empty where there is a problem
    if idle is None:
        found = count_tokens(texts, tokenizer)
    else:
        process = idle.get()
        try:
            found = process.encode(texts)
        finally:
            idle.put(process)
    return [
        Encoded(
            split=piece.split,
            starts=piece.starts,
            tokens=counted.tokens,
            characters=len(piece.text),
            bytes=counted.bytes,
            unknown=counted.unknown,
            name=piece.document.name,
            problem=piece.problem or counted.problem,
            origin=piece.document.origin,
        )
        for piece, counted in zip(pieces, found, strict=True)
    ]
