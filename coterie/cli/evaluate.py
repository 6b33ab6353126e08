"""`coterie evaluate`: how well a run predicts its own validation split, or any text."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from coterie.api.model import tell_damaged
from coterie.api.progress import count_bar
from coterie.checkpoint import LoadedModel, load_model, read_state
from coterie.checkpoint.layout import CONFIG
from coterie.cli.caching import MOST_TOKENS, asked_cache, cache_figures
from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.contest import ContestFlags, tell_contest
from coterie.cli.flags import refuse_flags
from coterie.cli.reading import ReadingFlags, reading_figures, tell_reading
from coterie.cli.routing import by_source, tell_routing, texts_of
from coterie.cli.words import read_words, standard_input
from coterie.data import Document, evaluation_batches, store_for
from coterie.data.clean import Clean, cleaned
from coterie.data.documents import whole_documents
from coterie.data.merged import AnyStore, held_out
from coterie.data.report import ReadingReport
from coterie.data.settings import DataSettings
from coterie.evaluate import (
    LoadCounter,
    Perplexity,
    RoutingHealth,
    Scoring,
    TextScore,
    framed_text,
    perplexity_of,
    score_texts,
    sequence_logprobs,
    validate,
    windows_at_once,
)
from coterie.foundation.errors import CheckpointError, UserError
from coterie.foundation.layers import Layer
from coterie.foundation.printable import printable
from coterie.foundation.records import validated
from coterie.foundation.runs import cache_root
from coterie.generate.cache import CacheSettings
from coterie.quantise import chosen_weights
from coterie.tokenizer.stream import pieces_of
from coterie.train.precision import resolve_device
from coterie.train.settings import RunSettings

_AS_IT_IS = ReadingFlags()
_ALONE = ContestFlags()
_USAGE = "For example: coterie evaluate latest   or: coterie evaluate latest my_text.txt"
_FLAGS = (
    "--text", "--json", "--tokens", "--stride", "--window", "--raw", "--column", "--on-error",
    "--delimiter", "--no-header", "--max-expansion", "--clean", "--cache", "--step", "--device",
    "--against", "--reward", "--sheet",
)  # fmt: skip
_SHOWN_INPUTS = 20  # in the table; --json has all


@dataclass(frozen=True)
class _Texts:
    """What to measure a model on, and how."""

    files: tuple[str, ...]  # `-`: standard input
    given: tuple[str, ...]
    reading: ReadingFlags
    scoring: Scoring
    raw: bool
    run: str
    routing: bool  # what the experts are used for is asked, not the loss
    contest: tuple[ContestFlags, list[Layer]]  # another run, and how both are to write

    @classmethod
    def of(
        cls, words: Sequence[str], given: tuple[str, ...], reading: ReadingFlags, scoring: Scoring,
        raw: bool, contest: tuple[ContestFlags, list[Layer]],
    ) -> "_Texts":  # fmt: skip
        """Return what the run and the words after it ask for."""
        if not words:
            raise UserError("Which run? None was named.", hint=_USAGE)
        run, *files = words
        routing = files[:1] == ["routing"]
        files = tuple(files[routing:])
        return cls(files, given, reading, scoring, raw, run, routing, contest)

    @property
    def some(self) -> bool:
        """Whether there are any; else the run's own validation split is meant."""
        return bool(self.files or self.given)


def evaluate(
    *words: Annotated[str, Parameter(allow_leading_hyphen=True)],
    text: tuple[str, ...] = (),
    json: bool = False,
    tokens: bool = False,
    stride: int | None = None,
    window: int | None = None,
    raw: bool = False,
    cache: str | None = None,
    reading: ReadingFlags = _AS_IT_IS,
    contest: ContestFlags = _ALONE,
    step: int | None = None,
    device: str = "auto",
) -> None:
    """Measure a run on its own validation split, or on texts: `coterie evaluate RUN [FILE ...]`.

    RUN is a run's name, `latest`, or the path of a run or checkpoint. Without a FILE the loss over
    the run's own validation split is measured; with files, folders, `-` (standard input) or
    --text, how well the model predicts them. Both show where each layer's router sent the tokens.
    `coterie evaluate RUN routing [FILE ...]` tells what each expert is used for: each file is a
    domain (without any, each source of the validation split).
    `coterie evaluate RUN --against RUN --reward metre` lets two models write on the same held-out
    prompts: who is judged better how often, and how their texts differ.

    Parameters
    ----------
    words
        The run and the texts; `weights=int8` or `int4` quantises the weights while they are loaded.
    text
        A text to measure, written here; may be given several times.
    json
        Print JSON.
    tokens
        Print every token of the texts with its log-probability in nats.
    stride
        Tokens between windows. As large as a window, the default: disjoint windows. Smaller:
        sliding ones, in which each token has more past, at more work.
    window
        Tokens of a window; the model's context by default.
    raw
        Measure the texts as they are; else they are cleaned as the run's own were (data.clean).
    cache
        Read the texts through this KV cache as well, and show what it changes and keeps; of the
        validation split the first 16,384 tokens. Its settings as words: cache.bits=4.
    step
        Use the checkpoint of this step instead of the newest.
    device
        Where to compute: auto, cpu, cuda, mps.
    """
    refuse_flags(words, "evaluate", _FLAGS)
    said, align = read_words(words).take_settings("align")
    said, weights = said.take_settings("weights")
    through = asked_cache(cache, said)
    how, beside = Scoring(window, stride), (contest, align)
    asked = _Texts.of(said.targets, text, reading, how, raw, beside)
    _refuse_contradictions(asked, tokens, cached=cache is not None)
    loaded = load_model(asked.run, step, tell_damaged, chosen_weights(*weights))
    loaded.decoder.to(resolve_device(device))
    _measure(loaded, asked, through, json=json, tokens=tokens)


def _measure(
    loaded: LoadedModel, asked: _Texts, cache: CacheSettings | None, *, json: bool, tokens: bool
) -> None:
    if asked.contest != (_ALONE, []):
        tell_contest(loaded, *asked.contest, json=json)
    elif asked.routing:
        documents = by_source(_read(loaded, asked)[0]) if asked.some else {}
        texts = texts_of(loaded, documents) if asked.some else _own_texts(loaded)
        tell_routing(loaded, texts, documents, json=json)
    elif asked.some:
        _tell_texts(loaded, asked, cache, json=json, tokens=tokens)
    else:
        _tell_own(loaded, cache, json=json)
    if not json:
        next_step(f'coterie generate {asked.run} "Once"  # write text with it')


def _refuse_contradictions(asked: _Texts, tokens: bool, *, cached: bool) -> None:
    """Refuse flags that look at texts where there are none, and those that exclude each other."""
    flags = tokens or asked.raw or asked.scoring != Scoring() or asked.reading != _AS_IT_IS
    if flags and not asked.some:
        raise UserError(
            "--tokens, --stride, --window, --raw and the flags for reading (--column, …) need a "
            "FILE or --text to look at.",
            hint=_USAGE,
        )
    if asked.routing and (tokens or cached or asked.scoring != Scoring()):
        raise UserError(
            "The analysis of routing takes no --tokens, --cache, --window or --stride.",
            hint="For example: coterie evaluate latest routing my_text.txt",
        )
    if asked.contest != (_ALONE, []) and (asked.contest[0].against is None or asked.some):
        raise UserError(
            "--reward, --sheet and align.… belong to --against, which takes held-out prompts.",
            hint="For example: coterie evaluate mine --against other --reward metre",
        )
    if asked.raw and asked.reading.clean:
        raise UserError("--raw and --clean contradict each other.", hint="Leave one of them out.")


def _tell_own(loaded: LoadedModel, cache: CacheSettings | None, *, json: bool) -> None:
    """Measure a run on the validation part of its own store and print what was found."""
    store = _own_store(loaded)
    packing = _run_settings(loaded).data.packing
    parts = held_out(store) or store.sources  # without any, it is told why
    loads, found, done = LoadCounter(), {}, 0
    total = sum(max(len(each.tokens("valid")) - 1, 0) for each in parts.values())
    with count_bar("Reading the validation split", total) as advance:
        for name, each in parts.items():
            batches = evaluation_batches(
                each.tokens("valid"),
                loaded.decoder.settings.context,
                windows_at_once(loaded.decoder),
                packing,
            )
            before = done
            found[name] = validate(
                loaded.decoder, batches, loads=loads,
                progress=lambda count, before=before: advance(before + count),
            )  # fmt: skip
            done += found[name].tokens
    loss = sum(each.loss * each.tokens for each in found.values()) / done
    characters = sum((parts[name].characters_per_token("valid") or 0) * each.tokens
                     for name, each in found.items())  # fmt: skip
    figures: dict[str, Any] = {
        "checkpoint": str(loaded.path), "step": loaded.step, "split": "valid",
        "tokens": done, "nats_per_token": loss,
        "nats_per_character": loss * done / characters if characters else None,
        "perplexity": math.exp(loss), "seconds": sum(each.seconds for each in found.values()),
    }  # fmt: skip
    if len(store.sources) > 1:
        figures |= {f"valid/{name}": each.loss for name, each in found.items()}
    if cache is not None:
        tokens = next(iter(parts.values())).tokens("valid")
        part = [tokens[:MOST_TOKENS].tolist()]
        plain = sequence_logprobs(loaded.decoder, part)
        figures |= cache_figures(loaded.decoder, part, cache, Scoring(), plain)
    _tell(figures, loads.health(), json=json)


def _run_settings(loaded: LoadedModel) -> RunSettings:
    where = str(loaded.path / CONFIG)
    return validated(RunSettings, loaded.settings, where, CheckpointError)


def _own_store(loaded: LoadedModel) -> AnyStore:
    """Return the store of a run's data, as long as they are what it was trained on.

    Raises:
        UserError: they are not.
    """
    settings = _run_settings(loaded)
    store = store_for(settings.data, settings.tokenizer, cache_root())
    if _trained_on(loaded) not in (None, store.fingerprint):
        raise UserError(
            "The run's data are not what it was trained on: the text was changed since, so its "
            "validation part may hold what the model has seen.",
            hint="Restore the text, or measure the model on a file: coterie evaluate RUN FILE",
        )
    return store


def _own_texts(loaded: LoadedModel) -> dict[str, list[list[int]]]:
    """Return the validation split as tokens, by the sources of its store."""
    store = _own_store(loaded)
    parts = held_out(store) or store.sources
    if len(parts) == 1:  # whose name is a folder's of the cache
        parts = {"held out": next(iter(parts.values()))}
    return {name: [each.tokens("valid")[:MOST_TOKENS].tolist()] for name, each in parts.items()}


def _trained_on(loaded: LoadedModel) -> str | None:
    """Return the fingerprint of the store that a checkpoint was trained on, if it says so."""
    return read_state(loaded.path).data


def _tell_texts(
    loaded: LoadedModel,
    asked: _Texts,
    cache: CacheSettings | None,
    *,
    json: bool,
    tokens: bool,
) -> None:
    documents, report = _read(loaded, asked)
    loads = LoadCounter()
    with count_bar("Reading", sum(len(each.text) for each in documents)) as advance:
        scores = score_texts(
            loaded.decoder, loaded.tokenizer, [each.text for each in documents],
            asked.scoring, loads, advance,
        )  # fmt: skip
    found = perplexity_of(scores, loaded.tokenizer)
    if found.unknown_tokens:
        stderr.print(
            f"Note: {found.unknown_tokens:,} characters are unknown to this model's tokenizer; "
            "the figures flatter it.",
            style="hint",
            soft_wrap=True,
        )
    figures: dict[str, Any] = {
        "checkpoint": str(loaded.path), "step": loaded.step, "files": list(asked.files),
        "documents": len(scores), "windows": asked.scoring.convention(loaded.decoder),
        **_figures(found),
    }  # fmt: skip
    if cache is not None:
        framed = [framed_text(loaded.tokenizer, each.text) for each in documents]
        plain = [each.logprobs for each in scores]
        figures |= cache_figures(loaded.decoder, framed, cache, asked.scoring, plain)
    inputs = _by_input(documents, scores, loaded)
    if json:
        figures |= reading_figures(report)
        figures["clean"] = [each.model_dump(mode="json") for each in _cleaning(loaded, asked)]
        figures["inputs"] = inputs
    if tokens:
        rows = list(_token_rows(loaded, scores))
        if json:
            figures["token_logprobs"] = rows
        else:
            for row in rows:
                line = f"{row['logprob']:9.4f}  {row['token']:>6}  {row['text']!r}"
                console.print(line, soft_wrap=True)
    _tell(figures, loads.health(), json=json, inputs=inputs)


def _cleaning(loaded: LoadedModel, asked: _Texts) -> tuple[Clean, ...]:
    """Return what the texts go through: what --clean says, or what the run's own went through."""
    if asked.raw or asked.reading.clean:
        return DataSettings(clean=asked.reading.clean).clean  # type: ignore[arg-type]
    own = (loaded.settings.get("data") or {}).get("clean") or ()
    return validated(DataSettings, {"clean": own}, str(loaded.path / CONFIG), CheckpointError).clean


def _read(loaded: LoadedModel, asked: _Texts) -> tuple[list[Document], ReadingReport]:
    """Return the texts to measure, cleaned, and how their reading went.

    Raises:
        DataError: a file cannot be read.
        UserError: there is nothing in a text, or cleaning leaves nothing of one.
    """
    own = not asked.reading.clean and not asked.raw
    steps = _cleaning(loaded, asked)
    files = tuple(each for each in asked.files if each != "-")
    documents: list[Document] = []
    report = ReadingReport()
    if files:
        sources = replace(asked.reading, clean=()).sources(files)
        documents += whole_documents(sources)
        report = sources.report
        tell_reading(report.skipped, report.problems, report.notes, "--json lists them")
    if "-" in asked.files:
        documents.append(Document("-", standard_input(), source="standard input"))
    for number, each in enumerate(asked.given, start=1):
        documents.append(Document(f"--text {number}", each, source=f"--text {number}"))
    if empty := [each.source for each in documents if not each.text and each.source not in files]:
        raise UserError(f"There is no text to evaluate: {empty[0]} is empty.")
    found = list(cleaned(documents, [each.build() for each in steps]))
    if not any(each.text for each in found):
        raise UserError("There is no text to evaluate: cleaning leaves nothing of it.")
    if own and steps:
        names = ", ".join(str(each.kind) for each in steps)
        stderr.print(
            f"Note: cleaned as the run's own texts were ({names}); --raw leaves it out.",
            style="hint",
            soft_wrap=True,
        )
    return [each for each in found if each.text], report


def _figures(found: Perplexity) -> dict[str, Any]:
    return {
        "tokens": found.tokens, "characters": found.characters,
        "bytes": found.bytes, "nats_per_token": found.nats_per_token,
        "nats_per_character": found.nats_per_character, "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity, "unknown_tokens": found.unknown_tokens,
    }  # fmt: skip


def _by_input(
    documents: Sequence[Document], scores: Sequence[TextScore], loaded: LoadedModel
) -> list[dict[str, Any]]:
    """Return the figures of each file, of standard input, and of each --text."""
    parts: defaultdict[str, list[TextScore]] = defaultdict(list)
    for document, score in zip(documents, scores, strict=True):
        parts[document.source or document.name].append(score)
    return [
        {"input": name, "documents": len(part), **_figures(perplexity_of(part, loaded.tokenizer))}
        for name, part in parts.items()
    ]


def _token_rows(loaded: LoadedModel, scores: list[TextScore]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(scores):
        texts = pieces_of(loaded.tokenizer, each.tokens)
        for token, text, logprob in zip(each.tokens, texts, each.logprobs.tolist(), strict=True):
            yield {"document": number, "token": token, "text": text, "logprob": logprob}


def _tell(
    figures: dict[str, Any],
    routing: tuple[RoutingHealth, ...],
    *,
    json: bool,
    inputs: Sequence[dict[str, Any]] = (),
) -> None:
    """Print figures and the routing of each layer, as tables or as JSON."""
    if json:
        emit_json({**figures, "routing": [_routing_row(each) for each in routing]})
        return
    console.print(facts((key.replace("_", " "), _shown(value)) for key, value in figures.items()))
    if 1 < len(inputs) <= _SHOWN_INPUTS:
        console.print()
        console.print(_inputs_table(inputs))
    if not routing:
        return
    console.print()
    table = Table(box=None, pad_edge=False)
    columns = ("layer", "experts", "used", "max/mean − 1", "utilised", "dead", "dropped", "load")
    for column in columns:
        table.add_column(column, justify="right" if column != "load" else "left")
    for each in routing:
        table.add_row(
            str(each.layer), str(len(each.load)), f"{each.experts_per_token:.2f}",
            f"{each.imbalance:.3f}", f"{each.utilisation:.1%}",
            f"{each.dead:.0%}", f"{each.dropped:,}", _bars(each.load),
        )  # fmt: skip
    console.print(table)


def _inputs_table(inputs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("input", "tokens", "perplexity", "bits per byte"):
        table.add_column(column, justify="left" if column == "input" else "right")
    for each in inputs:
        table.add_row(
            Text(printable(each["input"])), f"{each['tokens']:,}",
            f"{each['perplexity']:,.4f}", f"{each['bits_per_byte']:.4f}",
        )  # fmt: skip
    return table


def _routing_row(health: RoutingHealth) -> dict[str, Any]:
    return {
        "layer": health.layer, "load": list(health.load), "dropped": health.dropped,
        "imbalance": health.imbalance, "entropy": health.entropy, "dead": health.dead,
        "utilisation": health.utilisation, "experts_per_token": health.experts_per_token,
    }  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    if value is None:
        return "–"
    return (
        f"{value:,.4f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _bars(load: Sequence[int], most: int = 32) -> str:
    """Return the load as a row of bars, one per expert, as high as its share of the largest."""
    if len(load) > most:
        load = sorted(load, reverse=True)[:: -(-len(load) // most)]
    top = max(max(load), 1)
    return "".join("▁▂▃▄▅▆▇█"[min(int(8 * count / top), 7)] for count in load)
