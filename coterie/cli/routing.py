"""`coterie evaluate RUN routing`: what each layer's experts are used for, as tables or JSON."""

from __future__ import annotations

import json as json_text
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from coterie.api.progress import count_bar
from coterie.checkpoint import LoadedModel, load_model
from coterie.checkpoint.layout import list_checkpoints, step_of
from coterie.cli.console import console, emit_json, next_step, note, stderr
from coterie.data import Document
from coterie.evaluate import framed_text
from coterie.evaluate.specialisation import (
    PERMUTATIONS,
    Information,
    Labels,
    LayerUse,
    Texts,
    analyse_routing,
    rows_of,
    saturation,
    selections,
)
from coterie.foundation.errors import CheckpointError, UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.printable import printable
from coterie.foundation.runs import RunDirectory
from coterie.language.drama.tags import HEADING
from coterie.model import routed_layers
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.stream import pieces_of

_TOKENS, _MASKING_TOKENS = 16_384, 2_048  # of each domain
_PAIRS, _CHECKPOINTS = 3, 8
_LABELS = ("domain", "language", "speaker")
Documents = Mapping[str, Sequence[Document]]
_NO_DOCUMENTS: Documents = {}


def by_source(documents: Sequence[Document]) -> dict[str, list[Document]]:
    """Return documents by their file or source, the domains of the analysis."""
    found: defaultdict[str, list[Document]] = defaultdict(list)
    for each in documents:
        found[each.source or each.name].append(each)
    return dict(found)


def texts_of(loaded: LoadedModel, documents: Documents) -> dict[str, list[list[int]]]:
    """Return documents as tokens."""
    return {name: [framed_text(loaded.tokenizer, each.text) for each in some]
            for name, some in documents.items()}  # fmt: skip


def labels_of(
    tokenizer: Tokenizer, texts: Texts, documents: Documents
) -> tuple[Labels, dict[str, list[str]]]:
    """Return who speaks each token and in which language it is, and the labels' names.

    Who speaks is said by the messages of a conversation and by tagged plays, the language by the
    documents; where nothing says it, the label is −1.

    Args:
        documents: those of the texts; a store's texts have none.
    """
    names: dict[str, dict[str, int]] = {"language": {}, "speaker": {}}
    labels: dict[str, dict[str, list[np.ndarray]]] = {kind: defaultdict(list) for kind in names}
    for domain, rows in texts.items():
        for row, document in zip_longest(rows, documents.get(domain, ())[: len(rows)]):
            pieces = pieces_of(tokenizer, row)
            begins = np.cumsum([0, *map(len, pieces)])[:-1]
            whole = document.language if document is not None else None
            parts = {"language": [(0, len(pieces) and begins[-1] + 1, whole)] if whole else [],
                     "speaker": _spoken("".join(pieces), document)}  # fmt: skip
            for kind, stretches in parts.items():
                label = np.full(len(row), -1)
                for start, end, name in stretches:
                    number = names[kind].setdefault(name, len(names[kind]))
                    label[(begins >= start) & (begins < end)] = number
                labels[kind][domain].append(label)
    some = {kind: list(known) for kind, known in names.items() if len(known) > 1}
    return {kind: labels[kind] for kind in some}, some


def _spoken(text: str, document: Document | None) -> Iterator[tuple[int, int, str]]:
    """Yield the stretches of characters of which it is known who speaks them, and who does."""
    if document is not None and document.messages:
        at = 0
        for message in document.messages:
            start = text.find(message.text, at)
            if start >= 0 and message.text:
                at = start + len(message.text)
                yield start, at, message.role
        return
    headings = list(HEADING.finditer(text))
    for each, following in zip_longest(headings, headings[1:]):
        if each[1] == "SPEAKER":
            yield each.end(), following.start() if following else len(text), each[2]


def tell_routing(
    loaded: LoadedModel, texts: Texts, documents: Documents = _NO_DOCUMENTS, *, json: bool
) -> None:
    """Analyse a model's routing over texts of several domains, print and keep what was found.

    It is kept as `routing.json` in the run's directory, for its report.

    Raises:
        UserError: the model routes nothing.
    """
    layers = routed_layers(loaded.decoder)
    if not layers:
        raise UserError("This model has no experts, so nothing is routed.")
    read = {name: _first(rows, _TOKENS) for name, rows in texts.items()}
    again = {name: _first(rows, _MASKING_TOKENS) for name, rows in texts.items()}
    labels, names = labels_of(loaded.tokenizer, read, documents)
    experts = sum(part.num_experts for part in layers.values())
    with count_bar("Masking each expert", experts) as advance:
        found = analyse_routing(
            loaded.decoder, read, labels=labels, masking=again, progress=advance
        )
    kept = _saturation(loaded, read)
    domains = list(texts)
    told = {
        "checkpoint": str(loaded.path), "step": loaded.step, "permutations": PERMUTATIONS,
        "domains": {name: _count(rows) for name, rows in read.items()},
        "masking_tokens": {name: _count(rows) for name, rows in again.items()},
        **{f"{kind}s": known for kind, known in names.items()},
        "layers": [_layer(use, domains) for use in found], "saturation": kept,
    }  # fmt: skip
    run = _run_of(loaded)
    if run is not None:
        write_text_atomic(run.routing, json_text.dumps(told))
    if json:
        emit_json(told)
        return
    for name in domains:
        stderr.print(f"{printable(name, '')}: {_count(read[name]):,} tokens, "
                     f"{_count(again[name]):,} of them again without each expert",
                     style="dim", soft_wrap=True)  # fmt: skip
    console.print(_information_table(found))
    console.print(_experts_table(found, domains))
    console.print(_pairs_table(found))
    if len(kept) > 1:
        console.print(_saturation_table(kept, found))
    if run is not None:
        next_step(f"coterie report {run.path}  # with pictures of this")


def _run_of(loaded: LoadedModel) -> RunDirectory | None:
    """Return the run that a checkpoint lies in, if it lies in one."""
    folder = loaded.path.absolute().parent
    return RunDirectory(folder.parent) if folder.name == "checkpoints" else None


def _saturation(loaded: LoadedModel, read: Texts) -> list[dict[str, Any]]:
    """Return, for this checkpoint and earlier ones, how much of its routing was there already."""
    run = _run_of(loaded)
    earlier = [] if run is None else [
        path for path in list_checkpoints(run.checkpoints) if step_of(path) < loaded.step
    ]  # fmt: skip
    earlier.sort(key=step_of)
    places = np.unique(
        np.linspace(0, len(earlier) - 1, min(_CHECKPOINTS, len(earlier))).astype(int)
    )
    last, found = selections(loaded.decoder, read), []
    layers, device = routed_layers(loaded.decoder), next(loaded.decoder.parameters()).device
    with count_bar("Reading with earlier checkpoints", len(places)) as advance:
        for done, place in enumerate(places, start=1):
            try:
                other = load_model(earlier[place])
            except CheckpointError as error:
                note(f"passed over: {error}")
                continue
            before = selections(other.decoder.to(device), read)
            shares = {str(layer): saturation(before[layer], chosen, layers[layer].num_experts)
                      for layer, chosen in last.items()}  # fmt: skip
            found.append({"step": other.step, "layers": shares})
            advance(done)
    return [*found, {"step": loaded.step, "layers": {str(layer): 1.0 for layer in last}}]


def _first(rows: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Return the beginning of some texts, at most so many tokens."""
    taken, left = [], most
    for row in rows:
        if left < 2:
            break
        taken.append(list(row[:left]))
        left -= len(row)
    return taken


def _count(rows: Sequence[Sequence[int]]) -> int:
    return sum(len(row) - 1 for row in rows)


def _layer(use: LayerUse, domains: Sequence[str]) -> dict[str, object]:
    told: dict[str, object] = {
        "layer": use.health.layer, "tokens": use.health.tokens,
        "utilisation": use.health.utilisation, "imbalance": use.health.imbalance,
        "entropy": use.entropy, "margin_median": use.margin, "expert_entropy": use.expert_entropy,
    }  # fmt: skip
    for name, known in _informations(use).items():
        told[name] = None if known is None else vars(known)
    pairs = [[None if value != value else value for value in row] for row in use.together.tolist()]
    even = use.health.experts_per_token / len(use.health.load)
    return {**told, "saturation_even": even, "together": pairs, "together_even": use.together_even,
            "experts": list(rows_of(use, domains))}  # fmt: skip


def _informations(use: LayerUse) -> dict[str, Information | None]:
    """Return all that experts tell of labels; None: there is but one label of the kind."""
    found: dict[str, Information | None] = {"token": use.token, "position": use.position}
    for name in _LABELS:
        told = use.told.get(name)
        found[name] = told and told.plain
        found[f"{name}_given_token"] = told and told.given_token
    return found


def _information_table(found: Sequence[LayerUse]) -> Table:
    table = _table(
        "What a token's expert tells (mutual information, nats; null: labels dealt at random, "
        f"{PERMUTATIONS} times; at most H(expert))"
    )
    kinds = ["token", "position", *(
        f"{name}{given}" for name in _LABELS if any(name in use.told for use in found)
        for given in ("", "_given_token")
    )]  # fmt: skip
    names = [kind.replace("_given_token", " | token") for kind in kinds]
    for name in ("layer", "utilised", "router entropy", "margin", "H(expert)", *names):
        table.add_column(name, justify="right")
    for use in found:
        known = [_informations(use)[kind] for kind in kinds]
        cells = ["–" if each is None else f"{each.nats:.3f} (null {each.null:.3f}, p {each.p:.2f})"
                 for each in known]  # fmt: skip
        table.add_row(
            str(use.health.layer), f"{use.health.utilisation:.1%}", f"{use.entropy:.2f}",
            f"{use.margin:.3g}", f"{use.expert_entropy:.3f}", *cells,
        )  # fmt: skip
    return table


def _experts_table(found: Sequence[LayerUse], domains: Sequence[str]) -> Table:
    table = _table(
        "Each expert: load and weight (fair: 1.00); of each domain, its share over its share of "
        "all (none: ×1.00) and what the loss gains without it (nats a token)"
    )
    for name in ("expert", "load", "weight"):
        table.add_column(name, justify="right")
    for name in domains:
        table.add_column(Text(printable(name, "")), justify="right", overflow="fold")
    for use in found:
        for row in rows_of(use, domains):
            cells = []
            for number in range(len(domains)):
                cell = f"×{use.domains[row['expert'], number]:.2f}"  # type: ignore[index]
                if use.masked is not None:
                    cell += f" {use.masked[row['expert'], number]:+.4f}"  # type: ignore[index]
                cells.append(cell)
            table.add_row(f"{row['layer']}:{row['expert']}", f"{row['load']:.2f}",
                          f"{row['weight']:.2f}", *cells)  # fmt: skip
    return table


def _pairs_table(found: Sequence[LayerUse]) -> Table:
    table = _table(
        "Experts selected together, over what independence would give; of all pairs those furthest "
        "from even (if all sets were as likely)"
    )
    for name in ("layer", "even", "most", "least"):
        table.add_column(name, justify="left" if name in ("most", "least") else "right")
    for use in found:
        count = len(use.together)
        pairs = [(use.together[a, b], a, b) for a in range(count) for b in range(a + 1, count)]
        pairs = sorted(pair for pair in pairs if pair[0] == pair[0])
        shown = [f"{a}+{b} ×{lift:.2f}" for lift, a, b in pairs]
        table.add_row(str(use.health.layer), f"×{use.together_even:.2f}",
                      "  ".join(shown[::-1][:_PAIRS]), "  ".join(shown[:_PAIRS]))  # fmt: skip
    return table


def _saturation_table(kept: Sequence[dict[str, Any]], found: Sequence[LayerUse]) -> Table:
    even = ", ".join(
        f"{use.health.layer}: {use.health.experts_per_token / len(use.health.load):.2f}"
        for use in found
    )
    table = _table(
        "Saturation: share of the experts that a token is sent to now which it was sent to at an "
        f"earlier checkpoint (routers that know nothing of each other, k / E: {even})"
    )
    table.add_column("step", justify="right")
    for use in found:
        table.add_column(f"layer {use.health.layer}", justify="right")
    for row in kept:
        table.add_row(f"{row['step']:,}", *(f"{share:.2f}" for share in row["layers"].values()))
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title, "dim"), title_justify="left", box=None, pad_edge=False)
