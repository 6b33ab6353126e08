"""Token stores from Python: texts in, a folder out."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, get_args

from pydantic import ValidationError

from coterie.api.progress import stage_bar
from coterie.data import Sources, Store
from coterie.data.blend import Blend
from coterie.data.blend import blend as write_blend
from coterie.data.cleaning import CleaningReport, Works, clean_documents
from coterie.data.duplicates import Duplicates, Likeness, find_duplicates, without
from coterie.data.merged import MergedStore
from coterie.data.merged import merge as merge_stores
from coterie.data.mirror import uploaded, url_of
from coterie.data.overlap import NGRAM
from coterie.data.prepare import SHARD_TOKENS
from coterie.data.prepare import prepare as prepare_store
from coterie.data.reading import OnError
from coterie.data.settings import DataSettings
from coterie.data.sources import texts_of
from coterie.data.split import SplitKind
from coterie.data.store import is_store, open_plain_store
from coterie.data.writing import report_file, write_documents
from coterie.foundation.errors import UserError, nearest
from coterie.foundation.locks import own
from coterie.foundation.swap import half_written, recover
from coterie.language.drama.cleaning import Kind, Tags
from coterie.language.drama.tags import DRAMA_TAGS
from coterie.language.spelling import Spelling
from coterie.tokenizer.settings import parse_tokenizer


class Division(NamedTuple):
    """What is held out; see `prepare`."""

    valid_fraction: float = 0.1
    split: SplitKind = "documents"
    seed: int = 0


_AS_USUAL = Division()


class ReadingOptions(TypedDict, total=False):
    """How texts are read; see `data.reading.Reading`."""

    column: str | None
    on_error: OnError
    delimiter: str | None
    header: bool
    max_expansion: int
    template: str | None
    clean: Sequence[Any]


def prepare(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    tokenizer: str | Path = "gpt2",
    special: Iterable[str] = (),
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    seed: int = 0,
    replace: bool = False,
    processes: int | None = None,
    resume: bool = False,
    shard_tokens: int = SHARD_TOKENS,
    **reading: Unpack[ReadingOptions],
) -> Store:
    """Tokenize texts into a store and return it.

        coterie.prepare("books/", "store", tokenizer="bpe:4096")

    Args:
        inputs: files (text, Markdown, JSONL, CSV, Parquet; also compressed), folders of them,
            patterns, `git:REPOSITORY`, `hf:DATASET`, URLs, or `shakespeare`.
        out: the folder to make, or the URL of one; it appears only when it is complete.
        tokenizer: gpt2, cl100k_base, o200k_base, smollm, characters, bytes, bpe:4096 (trained
            here), or the path of one.
        special: texts that become one token each; `drama` means all tags of plays.
        valid_fraction: share of the characters held out for validation.
        split: hold out whole `documents`, or the `tail` of the whole text.
        seed: of the choice of documents held out.
        replace: replace a store that stands at `out`.
        processes: processes that encode; by default threads of this one. The store is the same.
        resume: go on from the last whole file of an interrupted preparation of the same text.
        shard_tokens: tokens in each of the store's files.
        reading: `column` of tables that holds the text, or a `template` of several;
            `on_error="skip"` leaves out and records rows and files that cannot be used;
            `delimiter` and `header` of CSV and TSV;
            `max_expansion` of compressed files; `clean`, the steps that texts go through first.

    Raises:
        DataError: an input cannot be read, or the documents are too few to split.
        TokenizerError: there is no such tokenizer, or it cannot encode the text.
        UserError: `out` exists, is being written, or cannot be written.
    """
    making = store_at(out, replace, "preparing a store", resume)
    with making as (place, replace), stage_bar() as tell:
        sources = sources_of(inputs, **reading)
        chosen = parse_tokenizer(str(tokenizer), special_tokens(special))
        tell("training", 0, None)
        built = chosen.build(texts_of(sources))
        store = prepare_store(
            sources, place, built, valid_fraction=valid_fraction, split=split, seed=seed,
            progress=tell, replace=replace, processes=processes, resume=resume,
            shard_tokens=shard_tokens,
        )  # fmt: skip
    return where_it_lies(store, out)


def clean(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    kind: Kind = "auto",
    tags: Tags = "full",
    spelling: Spelling | None = None,
    works: Works = "one",
    report: str | Path | None = None,
    **reading: Unpack[ReadingOptions],
) -> CleaningReport:
    """Clean plays, poems and books into a folder of texts.

        coterie.clean("gutenberg/", "clean")  # then coterie.prepare("clean/texts", "store")

    Args:
        inputs: files or folders of them, as for `prepare`; none of them is changed.
        out, spelling, works, report: see `clean_documents`.
        kind, tags: see `clean_text`.
        reading: see `prepare`.

    Raises:
        DataError: an input cannot be read, is empty or is no text.
        UserError: `out` exists, or cannot be written.
    """
    choices = [
        (kind, Kind),
        (tags, Tags),
        (works, Works),
        *([(spelling, Spelling)] if spelling else []),
    ]
    for given, known in ((given, get_args(known)) for given, known in choices):
        if given not in known:
            raise UserError(f"There is no “{given}” here; {nearest(given, known)}")
    with own(Path(out), "cleaning texts"), stage_bar() as tell:
        sources = sources_of(inputs, **reading)
        return clean_documents(
            sources, out, kind=kind, tags=tags, spelling=spelling, report=report, works=works,
            progress=tell,
        )  # fmt: skip


def dedup(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path | None = None,
    *,
    threshold: float = 0.8,
    ngram: int = 5,
    permutations: int = 128,
    seed: int = 0,
    report: str | Path | None = None,
    **reading: Unpack[ReadingOptions],
) -> Duplicates:
    """Find documents that are there more than once, and write those that stay.

        found = coterie.dedup("web.jsonl", "unique.jsonl", threshold=0.7)

    Args:
        inputs: files or folders of them, as for `prepare`; none of them is changed.
        out: see `write_documents`; None only finds.
        threshold, ngram, permutations, seed: see `Likeness`.
        report: a file for the groups, a line of JSON each.
        reading: see `prepare`.

    Raises:
        DataError: an input cannot be read, or two texts would have the same file.
        UserError: `out` or `report` exists, cannot be written, or a number is out of its range.
    """
    likeness = Likeness(threshold, ngram, permutations, seed)
    sources = sources_of(inputs, **reading)
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(own(Path(out), "writing documents"))
            refuse_existing(Path(out), replace=False, resume=False)
        rows = stack.enter_context(report_file(report, out))
        tell = stack.enter_context(stage_bar())
        found = find_duplicates(sources, likeness, tell)
        if out is not None:
            write_documents(without(sources, found), out)
        if rows is not None:
            lines = (json.dumps(group, ensure_ascii=False) + "\n" for group in found.groups())
            rows.write_text("".join(lines), "utf-8")
    found.reading = sources.report
    return found


def blend(
    main: str | Path,
    others: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    share: float = 0.1,
    ngram: int = NGRAM,
    tokenizer: str | Path = "gpt2",
    special: Iterable[str] = (),
    report: str | Path | None = None,
    replace: bool = False,
    division: Division = _AS_USUAL,
    **reading: Unpack[ReadingOptions],
) -> Blend:
    """Tokenize a text with a share of others that have nothing of it, into a store.

        coterie.blend("shakespeare", "bible.jsonl", "store", share=0.1)

    Args:
        main: a file, a folder or `shakespeare`; what is held out is held out of it.
        others: files or folders; see `data.blend.blend` for what is taken of them.
        out, tokenizer, special, replace, reading: see `prepare`; the main text trains a tokenizer.
        share: of the training tokens that shall be of the others.
        ngram: words in a row that they may not have in common with the main text.
        report: a file for the passages left out, a line of JSON each.
        division: `valid_fraction`, `split` and `seed`, of the main text.

    Raises:
        DataError: an input cannot be read, or too little is left of the others.
        UserError: `out` or `report` exists, cannot be written, or a number is out of its range.
    """
    making = store_at(out, replace, "preparing a store")
    with report_file(report, out) as rows, making as (place, replace), stage_bar() as tell:
        text, other = sources_of(main, **reading), sources_of(others, **reading)
        built = parse_tokenizer(str(tokenizer), special_tokens(special)).build(texts_of(text))
        found = write_blend(
            text, other, place, built, share=share, ngram=ngram, report=rows, progress=tell,
            replace_store=replace, **division._asdict(),
        )  # fmt: skip
    return dataclasses.replace(found, store=where_it_lies(found.store, out))


def merge(
    stores: Sequence[str | Path],
    out: str | Path,
    *,
    strategy: str = "proportional",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    temperature: float | None = None,
    epochs_at_most: float | None = None,
    copy: bool = False,
    replace: bool = False,
) -> MergedStore:
    """Merge stores into one that mixes them in a ratio, and return it; no token is copied.

        coterie.merge(["verse", "prose"], "both", strategy="weighted", weights=[0.7, 0.3])

    Args:
        stores: two folders or more, made with the same tokenizer.
        out: the folder to make.
        strategy: `equal`, `proportional` (to their tokens), `weighted` or `temperature`.
        weights: of `weighted`, one for each store in order or by name; they need not add up to one.
        temperature: of `temperature`; 1 is proportional, the higher, the more equal.
        epochs_at_most: how many times a store is read at most; the others then go on without it.
        copy: copy the stores into the folder, so that it stands alone.
        replace: replace a store that stands at `out`.

    Raises:
        StoreError: a store is missing, damaged, named twice or a merged one; or tokenizers differ.
        UserError: strategy or weights cannot be used; `out` exists, or cannot be written.
    """
    named = {"weights": weights, "temperature": temperature, "epochs_at_most": epochs_at_most}
    values = {name: value for name, value in named.items() if value is not None}
    try:
        mix = DataSettings.model_validate({"mix": {"kind": strategy, **values}}).mix
    except ValidationError as error:
        problem = error.errors()[0]
        where = [str(part) for part in problem["loc"] if part in named]
        told = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            told = f"{strategy} needs them"
        elif problem["type"] == "extra_forbidden":
            told = f"{strategy} has none"
        raise UserError(f"{': '.join([*where[:1], told])}.") from error
    return merge_stores(stores, out, mix, copy=copy, replace=replace)


def sources_of(
    inputs: str | Path | Iterable[str | Path], **reading: Unpack[ReadingOptions]
) -> Sources:
    """Return the documents of some inputs; see `prepare`.

    Raises:
        DataError: an input does not exist or cannot be read.
        UserError: there is no such option, or no such way to clean.
    """
    known = ReadingOptions.__annotations__
    if odd := [name for name in reading if name not in known]:
        raise UserError(f"There is no option “{odd[0]}” here; {nearest(odd[0], known)}")
    options: dict[str, Any] = {**reading}
    try:
        options["clean"] = DataSettings(clean=tuple(options.get("clean", ()))).clean
    except ValidationError as error:
        raise UserError(f"clean: {error.errors()[0]['msg']}") from error
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    return Sources([str(each) for each in several], **options)


@contextmanager
def store_at(
    out: str | Path, replace: bool, what: str, resume: bool = False
) -> Iterator[tuple[Path, bool]]:
    """Yield where to make the store that shall be at `out`, and whether one there is replaced.

    Raises:
        UserError: `out` exists, or is being written.
    """
    with uploaded(out, replace) as place, own(place, what):
        replace = replace or place != Path(out)  # what an upload that was interrupted left
        refuse_existing(place, replace, resume)
        yield place, replace


def where_it_lies(store: Store, out: str | Path) -> Store:
    """Return a store that was made for `out`, which by now may have been uploaded."""
    return store if url_of(out) is None else open_plain_store(out)


def refuse_existing(out: Path, replace: bool, resume: bool) -> None:
    """Refuse to write where something stands, but for a store that may be replaced."""
    target = Path(os.path.realpath(out))
    recover(target, keep=half_written(target) if resume else None)
    if os.path.lexists(os.path.realpath(out)) and not (replace and is_store(out)):
        kind = "a store" if is_store(out) else "something that is no store"
        raise UserError(
            f"{out} exists already: {kind}.",
            hint="Choose another --out, or --replace an old store.",
        )


def special_tokens(words: Iterable[str]) -> tuple[str, ...]:
    """Return the special tokens that words mean, none twice; `drama` means all tags of plays."""
    tokens = [tag for word in words for tag in (DRAMA_TAGS if word == "drama" else (word,))]
    return tuple(dict.fromkeys(tokens))
