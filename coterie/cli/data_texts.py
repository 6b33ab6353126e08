"""`coterie data`: texts to better texts, before they become a store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from coterie.api.data import Division
from coterie.api.data import blend as blend_texts
from coterie.api.data import clean as clean_texts
from coterie.api.data import dedup as dedup_texts
from coterie.cli.console import console, emit_json, next_step
from coterie.cli.reading import ReadingFlags, reading_figures, tell_reading
from coterie.cli.stores import describe
from coterie.data.cleaning import REPORT, TEXTS, Works
from coterie.data.overlap import NGRAM
from coterie.data.split import SplitKind
from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.language.drama.cleaning import Kind, Tags
from coterie.language.spelling import Spelling

_LISTED = 20
_AS_IT_IS = ReadingFlags()


@Parameter(name="*")
@dataclass(frozen=True)
class EndingFlags:
    """What becomes of a blended store, and how it is told."""

    replace: Annotated[bool, Parameter(help="Replace a store that stands at --out.")] = False
    json: Annotated[bool, Parameter(help="Print JSON.")] = False


_NEW = EndingFlags()
_EVERYTHING = "the same with --json"


def clean(
    kind: Kind,
    *inputs: str,
    out: Path,
    report: Path | None = None,
    tags: Tags = "full",
    spelling: Spelling | None = None,
    works: Works = "one",
    reading: ReadingFlags = _AS_IT_IS,
    json: bool = False,
) -> None:
    """Clean texts into a folder: `coterie data clean KIND INPUT... --out DIR`.

    Parameters
    ----------
    kind
        shakespeare: plays and poems, to tagged text; gutenberg: books, to plain text; auto looks.
    inputs
        Files or folders, as for `prepare`; none is changed.
    out
        The folder to make, for texts/ and report.jsonl; it appears only when it is complete.
    report
        A file for the account of every line that is not in the texts, instead of report.jsonl.
    tags
        full: the tags of the shipped corpus; inside: <STAGE>[...]</STAGE> and acts as scenes.
    spelling
        Spell words as today (modern) or as the First Folio (archaic); original/ keeps the source's.
    works
        several: divide files into the works that they hold, each a text of its own.
    json
        Print JSON.
    """
    if not inputs:
        raise UserError(
            "Which texts? None was named.", hint="coterie data clean auto TEXT... --out DIR"
        )
    found = clean_texts(
        inputs, out, kind=kind, tags=tags, spelling=spelling, works=works, report=report,
        **reading.options(),
    )  # fmt: skip
    told = str(report or out / REPORT)
    if json:
        paths = {"texts": str(out / TEXTS), "report": told}
        emit_json(vars(found) | paths | {"reading": reading_figures(found.reading)})
        return
    kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(found.kinds.items()))
    read, written = found.characters
    console.print(
        f"{out / TEXTS}: {kinds}; {read:,} characters read, {written:,} written", soft_wrap=True
    )
    counts = [f"{found.counts[what]:,} {what}" for what in ("unrecognised", "removed", "rewritten")]
    console.print(f"{told}: {', '.join(counts)}", soft_wrap=True)
    for problem in found.unrecognised[:_LISTED]:
        console.print(f"  {problem}", soft_wrap=True, markup=False)
    if found.counts["unrecognised"] > _LISTED:
        console.print(f"  … and {found.counts['unrecognised'] - _LISTED:,} more in {told}")
    tell_reading(**reading_figures(found.reading), everything=_EVERYTHING)
    next_step(f"coterie data prepare {out / TEXTS} --out STORE --special drama")


def dedup(
    *inputs: str,
    out: Path | None = None,
    report: Path | None = None,
    threshold: float = 0.8,
    ngram: int = 5,
    permutations: int = 128,
    seed: int = 0,
    reading: ReadingFlags = _AS_IT_IS,
    json: bool = False,
) -> None:
    """Leave out equal and nearly equal documents: `coterie data dedup INPUT... --out OUT`.

    Parameters
    ----------
    inputs
        Files or folders, as for `prepare`; none is changed.
    out
        FILE.jsonl, FILE.parquet or the folder to make; without it, duplicates are only told.
    report
        A file for the groups: which document stays, and which go.
    threshold
        Share of n-grams in common from which documents are nearly equal; 1 finds equal ones alone.
    ngram
        Words in an n-gram.
    permutations
        Numbers in a document's signature; more estimate better.
    seed
        Of the signatures.
    json
        Print JSON.
    """
    if not inputs:
        raise UserError("Which texts? None was named.", hint="coterie data dedup TEXT... --out DIR")
    found = dedup_texts(
        inputs, out, threshold=threshold, ngram=ngram, permutations=permutations, seed=seed,
        report=report, **reading.options(),
    )  # fmt: skip
    figures = found.figures()
    if json:
        emit_json(figures | {"groups": list(found.groups())} | reading_figures(found.reading))
        return
    console.print(
        f"{figures['documents']:,} documents in, {figures['kept']:,} stay; {figures['equal']:,} "
        f"equal and {figures['near']:,} nearly equal ones in {figures['groups']:,} groups "
        f"({figures['megacharacters_per_second']:.1f} million characters a second)",
        soft_wrap=True,
    )
    for number, group in enumerate(found.groups()):
        if number == _LISTED:
            console.print("  … and more, all of them with --report FILE or --json")
            break
        gone = ", ".join(f"{each['name']} ({each['similarity']:.2f})" for each in group["removed"])
        told = printable(f"  {group['kept']} stays for {gone}", keep="")
        console.print(told, soft_wrap=True, markup=False)
    tell_reading(**reading_figures(found.reading), everything=_EVERYTHING)
    if out is not None:
        next_step(f"coterie data prepare {out} --out STORE")


def blend(
    main: str,
    *others: str,
    out: Path,
    share: float = 0.1,
    ngram: int = NGRAM,
    tokenizer: str = "gpt2",
    special: tuple[str, ...] = (),
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    seed: int = 0,
    report: Path | None = None,
    ending: EndingFlags = _NEW,
    reading: ReadingFlags = _AS_IT_IS,
) -> None:
    """Tokenize a text with a share of others: `coterie data blend MAIN OTHER... --out STORE`.

    Parameters
    ----------
    main
        A file, a folder or `shakespeare`; what is held out is held out of it alone.
    others
        Files or folders; passages that have words of the main text are left out.
    out
        The folder to make, or a URL; it appears only when it is complete.
    share
        Of the training tokens that shall be of the others.
    ngram
        Words in a row that they may not have in common with the main text.
    tokenizer, special, valid_fraction, split
        As for `prepare`.
    seed
        Of the choice of documents, held out and taken.
    report
        A file for the passages left out, with the words that the main text has too.
    """
    if not others:
        raise UserError("Which other texts? None was named.",
                        hint="coterie data blend MAIN OTHER... --out STORE")  # fmt: skip
    found = blend_texts(
        main, others, out, share=share, ngram=ngram, tokenizer=tokenizer, special=special,
        report=report, replace=ending.replace, division=Division(valid_fraction, split, seed),
        **reading.options(),
    )  # fmt: skip
    if ending.json:
        figures = {"share": found.share, "tokens": found.tokens, "documents": found.documents,
                   "passages": found.passages, "removed": found.removed}  # fmt: skip
        emit_json(figures | {"store": describe(found.store)})
        return
    console.print(
        f"{out}: {found.share:.4f} of the training tokens ({found.tokens:,}, "
        f"{found.documents:,} documents) are other text; {len(found.removed):,} of its "
        f"{found.passages:,} passages left out, as the main text has words of them",
        soft_wrap=True,
    )
    next_step(f"coterie train quickstart data.store={out}", f"coterie data verify {out}")
