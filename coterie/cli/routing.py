"""`coterie evaluate RUN routing`: what each layer's experts are used for, as tables or JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from coterie.api.progress import count_bar
from coterie.checkpoint import LoadedModel
from coterie.cli.console import console, emit_json, stderr
from coterie.data import Document
from coterie.evaluate import framed_text
from coterie.evaluate.specialisation import (
    PERMUTATIONS,
    Information,
    LayerUse,
    Texts,
    analyse_routing,
    rows_of,
)
from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.model import routed_layers

_TOKENS, _MASKING_TOKENS = 16_384, 2_048  # of each domain
_PAIRS = 3
_INFORMATION = ("token", "position", "domain", "domain_given_token")


def texts_of(loaded: LoadedModel, documents: Sequence[Document]) -> dict[str, list[list[int]]]:
    """Return documents as tokens by their file or source, the domains of the analysis."""
    found: defaultdict[str, list[list[int]]] = defaultdict(list)
    for each in documents:
        found[each.source or each.name].append(framed_text(loaded.tokenizer, each.text))
    return dict(found)


def tell_routing(loaded: LoadedModel, texts: Texts, *, json: bool) -> None:
    """Analyse a model's routing over texts of several domains and print what was found.

    Raises:
        UserError: the model routes nothing.
    """
    layers = routed_layers(loaded.decoder)
    if not layers:
        raise UserError("This model has no experts, so nothing is routed.")
    read = {name: _first(rows, _TOKENS) for name, rows in texts.items()}
    again = {name: _first(rows, _MASKING_TOKENS) for name, rows in texts.items()}
    experts = sum(part.num_experts for part in layers.values())
    with count_bar("Masking each expert", experts) as advance:
        found = analyse_routing(loaded.decoder, read, masking=again, progress=advance)
    domains = list(texts)
    if json:
        emit_json({
            "checkpoint": str(loaded.path), "step": loaded.step, "permutations": PERMUTATIONS,
            "domains": {name: _count(rows) for name, rows in read.items()},
            "masking_tokens": {name: _count(rows) for name, rows in again.items()},
            "layers": [_layer(use, domains) for use in found],
        })  # fmt: skip
        return
    for name in domains:
        stderr.print(f"{printable(name, '')}: {_count(read[name]):,} tokens, "
                     f"{_count(again[name]):,} of them again without each expert",
                     style="dim", soft_wrap=True)  # fmt: skip
    console.print(_information_table(found))
    console.print(_experts_table(found, domains))
    console.print(_pairs_table(found))


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
    for name in _INFORMATION:
        known: Information | None = getattr(use, name)
        told[name] = None if known is None else vars(known)
    pairs = [[None if value != value else value for value in row] for row in use.together.tolist()]
    return {**told, "together": pairs, "together_even": use.together_even,
            "experts": list(rows_of(use, domains))}  # fmt: skip


def _information_table(found: Sequence[LayerUse]) -> Table:
    table = _table(
        "What a token's expert tells (mutual information, nats; null: labels dealt at random, "
        f"{PERMUTATIONS} times; at most H(expert))"
    )
    for name in ("layer", "utilised", "router entropy", "margin", "H(expert)", "token", "position",
                 "domain", "domain | token"):  # fmt: skip
        table.add_column(name, justify="right")
    for use in found:
        known = [getattr(use, name) for name in _INFORMATION]
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


def _table(title: str) -> Table:
    return Table(title=Text(title, "dim"), title_justify="left", box=None, pad_edge=False)
