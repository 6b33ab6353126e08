"""`coterie evaluate`: how well a run predicts its own validation split, or any text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from coterie.api.model import tell_damaged
from coterie.api.progress import count_bar
from coterie.checkpoint import LoadedModel, load_model, read_state
from coterie.checkpoint.layout import CONFIG
from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.reading import ReadingFlags, reading_figures, tell_reading
from coterie.cli.words import read_words
from coterie.data import Document, evaluation_batches, store_for
from coterie.evaluate import (
    LoadCounter,
    RoutingHealth,
    TextScore,
    perplexity_of,
    score_text,
    validate,
    windows_at_once,
)
from coterie.foundation.errors import CheckpointError, UserError
from coterie.foundation.records import validated
from coterie.foundation.runs import cache_root
from coterie.tokenizer.stream import pieces_of
from coterie.train.precision import resolve_device
from coterie.train.settings import RunSettings

_AS_IT_IS = ReadingFlags()
_USAGE = "For example: coterie evaluate latest   or: coterie evaluate latest my_text.txt"


def evaluate(
    *words: str,
    json: bool = False,
    tokens: bool = False,
    stride: int | None = None,
    reading: ReadingFlags = _AS_IT_IS,
    step: int | None = None,
    device: str = "auto",
) -> None:
    """Measure a run on its own validation split, or on texts: `coterie evaluate RUN [FILE ...]`.

    RUN is a run's name, `latest`, or the path of a run or checkpoint. Without a FILE the loss over
    the run's own validation split is measured; with files or folders, how well the model predicts
    them. Both show where each layer's router sent the tokens.

    Parameters
    ----------
    words
        The run and the texts.
    json
        Print JSON.
    tokens
        Print every token of the texts with its log-probability in nats.
    stride
        Tokens between windows: smaller than the context gives each token more past, and more work.
    step
        Use the checkpoint of this step instead of the newest.
    device
        Where to compute: auto, cpu, cuda, mps.
    """
    said = read_words(words)
    if said.overrides or said.overlays:
        raise UserError("`coterie evaluate` takes no settings, only flags.", hint=_USAGE)
    if not said.targets:
        raise UserError("Which run? None was named.", hint=_USAGE)
    target, files = said.targets[0], said.targets[1:]
    if (tokens or stride is not None or reading != _AS_IT_IS) and not files:
        raise UserError(
            "--tokens, --stride and the flags for reading (--column, …) need a FILE to look at.",
            hint=_USAGE,
        )
    loaded = load_model(target, step=step, on_damaged=tell_damaged)
    loaded.decoder.to(resolve_device(device))
    if files:
        _tell_texts(loaded, files, reading, stride, json=json, tokens=tokens)
    else:
        _tell_own(loaded, json=json)
    if not json:
        next_step(f'coterie generate {target} "Once"  # write text with it')


def _tell_own(loaded: LoadedModel, *, json: bool) -> None:
    """Measure a run on the validation part of its own store and print what was found."""
    where = str(loaded.path / CONFIG)
    settings = validated(RunSettings, loaded.settings, where, CheckpointError)
    store = store_for(settings.data, settings.tokenizer, cache_root())
    if _trained_on(loaded) not in (None, store.fingerprint):
        raise UserError(
            "The run's data are not what it was trained on: the text was changed since, so its "
            "validation part may hold what the model has seen.",
            hint="Restore the text, or measure the model on a file: coterie evaluate RUN FILE",
        )
    tokens = store.tokens("valid")
    with count_bar("Reading the validation split", max(len(tokens) - 1, 0)) as advance:
        batches = evaluation_batches(
            tokens,
            loaded.decoder.settings.context,
            windows_at_once(loaded.decoder),
            settings.data.packing,
        )
        found = validate(loaded.decoder, batches, progress=advance)
    per_token = store.characters_per_token("valid")
    figures: dict[str, Any] = {
        "checkpoint": str(loaded.path), "step": loaded.step, "split": "valid",
        "tokens": found.tokens, "nats_per_token": found.loss,
        "nats_per_character": found.loss / per_token if per_token else None,
        "perplexity": math.exp(found.loss), "seconds": found.seconds,
    }  # fmt: skip
    _tell(figures, found.routing, json=json)


def _trained_on(loaded: LoadedModel) -> str | None:
    """Return the fingerprint of the store that a checkpoint was trained on, if it says so."""
    return read_state(loaded.path).data


def _tell_texts(
    loaded: LoadedModel,
    files: Sequence[str],
    reading: ReadingFlags,
    stride: int | None,
    *,
    json: bool,
    tokens: bool,
) -> None:
    """Measure a model on the texts of some files and print what was found."""
    sources = reading.sources(tuple(files))
    documents = _whole(iter(sources))
    report = sources.report
    tell_reading(report.skipped, report.problems, report.notes, "--json lists them")
    scores: list[TextScore] = []
    loads, done = LoadCounter(), 0
    with count_bar("Reading", sum(len(text) for text in documents)) as advance:
        for text in documents:
            scores.append(score_text(loaded.decoder, loaded.tokenizer, text, stride, loads))
            done += len(text)
            advance(done)
    found = perplexity_of(scores, loaded.tokenizer)
    if found.unknown_tokens:
        stderr.print(
            f"Note: {found.unknown_tokens:,} characters are unknown to this model's tokenizer; "
            "the figures flatter it.",
            style="hint",
            soft_wrap=True,
        )
    figures: dict[str, Any] = {
        "checkpoint": str(loaded.path), "step": loaded.step, "files": list(files),
        "documents": len(scores), "tokens": found.tokens, "characters": found.characters,
        "bytes": found.bytes, "nats_per_token": found.nats_per_token,
        "nats_per_character": found.nats_per_character, "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity, "unknown_tokens": found.unknown_tokens,
    }  # fmt: skip
    if json:
        figures |= reading_figures(report)
    if tokens:
        rows = list(_token_rows(loaded, scores))
        if json:
            figures["token_logprobs"] = rows
        else:
            for row in rows:
                line = f"{row['logprob']:9.4f}  {row['token']:>6}  {row['text']!r}"
                console.print(line, soft_wrap=True)
    _tell(figures, loads.health(), json=json)


def _whole(documents: Iterator[Document]) -> list[str]:
    """Return the texts of documents, those that came in pieces put together, without empty ones."""
    texts: list[list[str]] = []
    for each in documents:
        if each.continued and texts:
            texts[-1].append(each.text)
        else:
            texts.append([each.text])
    return [text for pieces in texts if (text := "".join(pieces))]


def _token_rows(loaded: LoadedModel, scores: list[TextScore]) -> Iterator[dict[str, Any]]:
    for each in scores:
        texts = pieces_of(loaded.tokenizer, each.tokens)
        for token, text, logprob in zip(each.tokens, texts, each.logprobs.tolist(), strict=True):
            yield {"token": token, "text": text, "logprob": logprob}


def _tell(figures: dict[str, Any], routing: tuple[RoutingHealth, ...], *, json: bool) -> None:
    """Print figures and the routing of each layer, as tables or as JSON."""
    if json:
        emit_json({**figures, "routing": [_routing_row(each) for each in routing]})
        return
    console.print(facts((key.replace("_", " "), _shown(value)) for key, value in figures.items()))
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


def _routing_row(health: RoutingHealth) -> dict[str, Any]:
    return {
        "layer": health.layer, "load": list(health.load), "dropped": health.dropped,
        "imbalance": health.imbalance, "entropy": health.entropy, "dead": health.dead,
        "utilisation": health.utilisation, "experts_per_token": health.experts_per_token,
    }  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
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
