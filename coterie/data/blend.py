"""A share of other text beside the main one, free of what stands in the main one too.

The other text is cut into passages; those that have an n-gram of the main text, held out or not,
are left out. What stands between becomes documents, taken in an order of hashes until they are the
wished share of the training tokens; the last is cut. Nothing of it is held out.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coterie.data.documents import Document, in_batches, whole_documents
from coterie.data.encode import encode_pieces
from coterie.data.overlap import NGRAM, NGramIndex
from coterie.data.prepare import write_store
from coterie.data.sources import Sources
from coterie.data.split import (
    OnProgress,
    Piece,
    SplitKind,
    SplitRule,
    Survey,
    document_key,
    split_pieces,
    split_rule,
    survey,
)
from coterie.data.store import Store
from coterie.foundation.errors import DataError, UserError
from coterie.tokenizer.interface import Tokenizer

_PASSAGE = 2000  # characters; a passage ends at the first line end after so many
_WORDS = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Blend:
    """What was blended.

    Attributes:
        store: the store that was written.
        tokens: of the other text, each document's separator included.
        documents: of the other text that were taken.
        passages: of the other text, in all.
        removed: passages that the main text has n-grams of: name, where in it, the words.
    """

    store: Store
    tokens: int
    documents: int
    passages: int
    removed: tuple[dict[str, Any], ...]

    @property
    def share(self) -> float:
        """The other text's share of the training tokens."""
        return self.tokens / self.store.manifest.splits["train"].tokens


def blend(
    main: Sources,
    other: Sources,
    out: Path | str,
    tokenizer: Tokenizer,
    *,
    share: float = 0.1,
    ngram: int = NGRAM,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    seed: int = 0,
    report: Path | None = None,
    progress: OnProgress | None = None,
    replace_store: bool = False,
) -> Blend:
    """Write a store of the main text with a share of another; a pure function of both and the seed.

    The main text is encoded twice; the other text is held in memory.

    Args:
        share: of the training tokens that shall be of the other text.
        ngram: words in a row that none of it may have in common with the main text.
        valid_fraction, split, seed: of the main text, as for `prepare`.
        report: a file that gets a line of JSON for each passage left out.

    Raises:
        DataError: too little is left of the other text, or an input cannot be read.
        UserError: the share or the n-gram is out of its range.
    """
    if not (0 < share < 1 <= ngram):
        raise UserError(f"share is between 0 and 1, ngram 1 at least; not {share}, {ngram}.")
    with tempfile.TemporaryDirectory() as folder:
        found = survey(main, seed, Path(folder) / "keys", progress)
        rule = split_rule(found, split, valid_fraction)
        trained, held_out = _counted(main, found, rule, tokenizer)
        passages = [list(_passages(document)) for document in whole_documents(other)]
    clean, removed = _decontaminated(passages, main, ngram)
    if report is not None:
        rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in removed)
        report.write_text("".join(rows), "utf-8")
    usable = [each for run in clean for each in _trainable(run, rule, seed)]
    usable.sort(key=lambda document: document_key(document.text, seed + 1))
    taken, tokens = _taken(usable, round(trained * share / (1 - share)), tokenizer, rule, seed)
    reached = tokens / (tokens + trained)
    if abs(reached - share) > 0.001:
        raise DataError(
            f"A share of {share} cannot be had: without what the main text has too, and cut at a "
            f"blank, {tokens:,} tokens of the other text are {reached:.4f} of the training text.",
            hint=f"Give more text, or ask for less: --share {int(reached * 1000) / 1000}",
        )
    characters = found.characters + sum(len(document.text) for document in taken)
    # Half a character less: the count that trains is rounded down.
    fraction = (held_out - 0.5 * (rule.kind == "tail")) / characters if held_out else 0
    store = write_store(
        _Blended(main, taken, f"{len(taken):,} documents of other text, {reached:.4f} of tokens"),
        out, tokenizer, valid_fraction=fraction, split=rule.kind if held_out else split, seed=seed,
        progress=progress, replace=replace_store,
    )  # fmt: skip
    return Blend(store, tokens, len(taken), sum(map(len, passages)), tuple(removed))


class _Blended(Sources):
    """The main text with documents of the other one before it."""

    def __init__(self, main: Sources, others: list[Document], note: str) -> None:
        self.__dict__.update(vars(main))
        self._others, self._said = others, note

    def __iter__(self) -> Iterator[Document]:
        yield from self._others
        yield from super().__iter__()
        self.report.note(self._said, "blend")


def _counted(
    main: Sources, found: Survey, rule: SplitRule, tokenizer: Tokenizer
) -> tuple[int, int]:
    """Return how many tokens train, a separator for each document, and characters held out."""
    tokens = characters = 0
    for piece in encode_pieces(split_pieces(main, found, rule), tokenizer):
        if piece.split == "train":
            tokens += len(piece.tokens) + piece.starts
        else:
            characters += piece.characters
    return tokens - 1, characters  # none stands before the first


def _passages(document: Document) -> Iterator[Document]:
    text, begin = document.text, 0
    while len(text) - begin > 2 * _PASSAGE:
        end = text.find("\n", begin + _PASSAGE, begin + 2 * _PASSAGE) + 1
        end = end or text.find(" ", begin + 2 * _PASSAGE) + 1 or len(text)
        yield document.cut(begin, end)
        begin = end
    if begin < len(text):
        yield document.cut(begin)


def _read_on(document: list[Document], ngram: int) -> Iterator[Document]:
    """Yield passages with the first words of the next, so that every n-gram is in one of them."""
    for passage, following in zip(document, [*document[1:], None], strict=True):
        words = _WORDS.findall(following.text)[: ngram - 1] if following else []
        yield replace(passage, text=f"{passage.text} {' '.join(words)}")


def _decontaminated(
    passages: list[list[Document]], main: Sources, ngram: int
) -> tuple[list[list[Document]], list[dict[str, Any]]]:
    """Return what is clean as runs of passages, and an account of those left out."""
    index = NGramIndex((each for run in passages for each in _read_on(run, ngram)), ngram)
    for batch in in_batches(main):
        index.mark([document.text for document in batch])
    shares, seen = index.shares(), index.seen
    runs: list[list[Document]] = []
    removed, number = [], 0
    for document in passages:
        runs.append([])
        at = 0
        for passage in document:
            if shares[number]:
                first = int(seen[index.begins[number] : index.begins[number + 1]].argmax())
                words = _WORDS.findall(passage.text)[first : first + ngram]
                removed.append({"name": passage.name, "character": at, "words": " ".join(words),
                                "share": round(float(shares[number]), 4)})  # fmt: skip
                runs.append([])
            else:
                runs[-1].append(passage)
            at += len(passage.text)
            number += 1
    return [run for run in runs if run], removed


def _trainable(run: list[Document], rule: SplitRule, seed: int) -> Iterator[Document]:
    """Yield a run as one document, or as few as have hashes on the side that trains."""
    text = "".join(passage.text for passage in run)
    document = replace(run[0], text=text, continued=False, spans=())
    if _trains(text, rule, seed):
        yield document
    elif len(run) > 1:
        half = len(run) // 2
        yield from _trainable(run[:half], rule, seed)
        yield from _trainable(run[half:], rule, seed)


def _trains(text: str, rule: SplitRule, seed: int) -> bool:
    return rule.kind == "tail" or document_key(text, seed) >= rule.threshold


def _taken(
    documents: list[Document], wanted: int, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> tuple[list[Document], int]:
    """Return the first documents that have so many tokens, the last one cut, and the tokens."""
    taken: list[Document] = []
    tokens = 0
    for document in documents:
        size = _size(document, tokenizer)
        if tokens + size > wanted:
            document = _shortened(document, wanted - tokens, tokenizer, rule, seed)
            size = _size(document, tokenizer) if document.text else 0
        if size:
            taken.append(document)
            tokens += size
        if tokens + 1 >= wanted or not document.text:
            break
    return taken, tokens


def _size(document: Document, tokenizer: Tokenizer) -> int:
    pieces = encode_pieces([Piece("train", document)], tokenizer, 1)
    return sum(len(piece.tokens) for piece in pieces) + 1


def _shortened(
    document: Document, wanted: int, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> Document:
    """Return the longest beginning of at most so many tokens that ends at a blank and trains."""
    places = [found.start() for found in re.finditer(r"\s+", document.text)]
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        short = _size(document.cut(0, places[middle]), tokenizer) <= wanted
        low, high = (middle + 1, high) if short else (low, middle)
    for place in reversed(places[:low]):
        if place and _trains(document.text[:place], rule, seed):
            return document.cut(0, place)
    return document.cut(0, 0)
