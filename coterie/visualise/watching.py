"""A model at work, in a terminal: panels of what a trace says, each with its formula in its title.

They are drawn from a `Trace` alone, so that a text looks the same while it is written and when it
is replayed. Colour repeats what numbers or words say as well; nothing depends on it.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from coterie.foundation.printable import printable
from coterie.foundation.traces import NO_EXPERT, Trace
from coterie.visualise.figures import significant
from coterie.visualise.routing import (
    HOT,
    PHASES,
    Load,
    card_of,
    entropy_of,
    load_of,
    routed_layers,
)
from coterie.visualise.tables import Panel

Colouring = Literal["expert", "surprise", "entropy"]
# Okabe & Ito 2008, told apart by eyes of every kind; beyond eight they repeat.
_PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
_RAMP = ("#3b4cc0", "#7b9ff9", "#c0d4f5", "#f2cbb7", "#ee8468", "#b40426")  # low, high
_BARS = " ▁▂▃▄▅▆▇█"
_LONGEST = 400  # characters of a token
MARK = "bold reverse"
"""The style of the token that is looked at."""
_CELL = 5
_CELLS_OF_BARS = 32
_NORMS = ("residual", "attention", "feedforward")


def coloured_text(trace: Trace, colouring: Colouring, layer: int) -> Text:
    """Return the text, each token on its colour; see `piece`."""
    return Text.assemble(
        *(piece(trace, place, colouring, layer) for place in range(len(trace.texts)))
    )


def piece(trace: Trace, place: int, colouring: Colouring, layer: int) -> tuple[str, str]:
    """Return what a token added to the text, `_LONGEST` characters of it at most, and its style.

    By expert: the one of most weight in the layer. By surprise: −log p in nats, from blue (0) to
    red (log V). By entropy: of the distribution that it was chosen from, likewise. The prompt is
    in italics.
    """
    record, text = trace.records[place], printable(trace.texts[place][:_LONGEST])
    if len(trace.texts[place]) > _LONGEST:
        text += "…"
    if colouring == "expert":
        style = _expert_style(record, layer)
    else:
        style = _ramp(float(record[colouring]) / max(np.log(max(trace.header.vocabulary, 2)), 1e-9))
    return text, style if record["generated"] else f"italic {style}".strip()


def _expert_style(record: np.void, layer: int) -> str:
    if layer >= record["experts"].shape[0] or not record["experts"].shape[1]:
        return ""
    expert = _first_expert(record, layer)
    return "" if expert is None else _on(_PALETTE[expert % len(_PALETTE)])


def _on(colour: str) -> str:
    """Return a style of that background, its letters black or white, whichever is told better."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return f"{'#000000' if luminance > 0.179 else '#ffffff'} on {colour}"


def _first_expert(record: np.void, layer: int) -> int | None:
    """Return the expert of most weight for a token, None where it went to none."""
    experts = record["experts"][layer]
    if not (experts != NO_EXPERT).any():
        return None
    weights = np.where(experts == NO_EXPERT, -np.inf, record["weights"][layer])
    return int(experts[int(np.argmax(weights))])


def _ramp(share: float) -> str:
    if np.isnan(share):
        return ""
    return _on(_RAMP[min(int(np.clip(share, 0, 1) * len(_RAMP)), len(_RAMP) - 1)])


def legend(trace: Trace, colouring: Colouring, layer: int) -> Text:
    shown = Text()
    if colouring == "expert":
        shown.append(f"expert of most weight in layer {layer}: ")
        for expert in range(trace.header.experts[layer]):
            shown.append(f" {expert} ", _on(_PALETTE[expert % len(_PALETTE)]))
    else:
        what = "surprise = −log p(token)" if colouring == "surprise" else "entropy = −Σ p log p"
        bound = np.log(max(trace.header.vocabulary, 2))
        shown.append(f"{what}, nats: 0 ")
        for colour in _RAMP:
            shown.append("  ", f"on {colour}")
        shown.append(f" {bound:.1f} = log V, a uniform guess")
    return shown.append("   italics: prompt", "dim")


def candidates_panel(trace: Trace, at: int) -> Panel:
    """Return what a token was chosen from, and what each layer's stream would have said before."""
    record = trace.records[at]
    table = Panel(
        "Candidates for this place: p by the model | what was drawn from"
        + (f" ({int(record['allowed']):,} left)" if record["allowed"] else "")
    )
    for name in ("model", "p", "drawn from", "p"):
        table.add_column(name, justify="right" if name == "p" else "left")
    for row in range(trace.header.candidates):
        cells: list[Text] = []
        for name in ("before", "after"):
            chance = float(record[f"{name}_p"][row])
            if chance > 0:
                mark = " ◂" if record[name][row] == record["token"] else ""
                word = Text(f"{_word(trace, record[name][row])}{mark}")
                cells += [word, Text(f"{chance:.3f}")]
            else:
                cells += [Text(""), Text("")]
        table.add_row(*cells)
    return table


def lens_panel(trace: Trace, at: int, *, attention: bool = True) -> Panel:
    """Return the next token by the stream after each layer, with the residual stream's parts.

    Args:
        attention: whether to say where attention looked.
    """
    record = trace.records[at]
    table = Panel(
        "Stream after each layer: ‖x‖, and ‖·‖ of what each branch returned; logit lens: "
        "softmax(head(norm(x)))"
    )
    looks = ("looks back to",) if attention else ()
    for name in ("layer", "‖x‖", "attention", "experts/MLP", *looks, "would say next"):
        table.add_column(name, justify="left" if name[0] in "lw" else "right")
    for layer in range(len(trace.header.experts)):
        norms = [significant(float(record[name][layer])) for name in _NORMS]
        back = [
            f"{_text_at(trace, at - int(distance))} −{int(distance)} ({chance:.0%})"
            for distance, chance in zip(
                record["attended"][layer], record["attended_p"][layer], strict=True
            )
            if chance > 0
        ]
        next_words = [
            f"{_word(trace, token)} {chance:.2f}"
            for token, chance in zip(record["lens"][layer], record["lens_p"][layer], strict=True)
            if chance > 0
        ]
        shown = ("  ".join(back),) if attention else ()
        table.add_row(str(layer), *norms, *shown, "  ".join(next_words))
    return table


def attention_panel(trace: Trace, at: int) -> Panel:
    """Return where each layer's attention looked from one token."""
    record = trace.records[at]
    table = Panel("Attention from this token: tokens of most weight, averaged over heads; entropy "
                   "−Σ a log a in nats, at most log of the tokens it may see")  # fmt: skip
    for name in ("layer", "entropy", "a", "", "back", "token"):
        table.add_column(name, justify="right" if name in ("entropy", "a", "back") else "left")
    for layer in range(len(trace.header.experts)):
        entropy = significant(float(record["attention_entropy"][layer]))
        rows = list(zip(record["attended"][layer].tolist(), record["attended_p"][layer].tolist(),
                        strict=True))  # fmt: skip
        for number, (back, weight) in enumerate(rows):
            if weight > 0:
                name = (str(layer), entropy) if number == 0 else ("", "")
                bar = "█" * round(20 * weight)
                table.add_row(*name, f"{weight:.2f}", bar, f"−{back}", _text_at(trace, at - back))
        if not rows or not rows[0][1] > 0:
            table.add_row(str(layer), "–", "–", "", "", "it does not tell")
    return table


def now_panel(trace: Trace, at: int, width: int | None = None) -> Panel:
    """Return the router's shares for one token, experts × layers, the selected with weights.

    Where a column for each expert does not fit the width, each has a bar, and those selected stand
    beside them.
    """
    record = trace.records[at]
    most = max(trace.header.experts, default=0)
    if width is not None and most * (_CELL + 2) + 18 > width:
        return _now_in_bars(trace, record)
    table = Panel("Experts × layers for this token: the router's share of each; [weight] if "
                   f"selected; uniform {', '.join(_uniform(trace))}")  # fmt: skip
    table.add_column("layer", justify="right")
    for expert in range(most):
        table.add_column(str(expert), justify="right", width=_CELL)
    table.add_column("margin", justify="right")
    for layer in routed_layers(trace):
        chosen = dict(zip(record["experts"][layer].tolist(), record["weights"][layer].tolist(),
                          strict=True))  # fmt: skip
        cells = []
        for expert in range(most):
            share = float(record["shares"][layer, expert])
            if np.isnan(share):
                cells.append(Text(""))
            elif expert in chosen:
                colour = _PALETTE[expert % len(_PALETTE)]
                cells.append(Text(f"[{chosen[expert]:.2f}]", _on(colour)))
            else:
                cells.append(Text(f"{share:.2f}", "dim"))
        table.add_row(str(layer), *cells, significant(float(record["margin"][layer])))
    return table


def _now_in_bars(trace: Trace, record: np.void) -> Panel:
    table = Panel(
        "Experts × layers for this token: a bar for each expert’s share, highest twice a fair one; "
        f"selected: expert=weight; uniform {', '.join(_uniform(trace))}"
    )
    for name in ("layer", "shares", "selected", "margin"):
        table.add_column(name, justify="right" if name == "margin" else "left")
    for layer in routed_layers(trace):
        count = trace.header.experts[layer]
        shown = bars(np.nan_to_num(record["shares"][layer, :count]) * count, _CELLS_OF_BARS)
        chosen = zip(record["experts"][layer].tolist(), record["weights"][layer].tolist(),
                     strict=True)  # fmt: skip
        told = " ".join(f"{expert}={weight:.2f}" for expert, weight in chosen
                        if expert != NO_EXPERT)  # fmt: skip
        table.add_row(str(layer), shown, told, significant(float(record["margin"][layer])))
    return table


def _uniform(trace: Trace) -> list[str]:
    return [f"{1 / count:.3f}" for count in dict.fromkeys(trace.header.experts) if count]


def load_panel(trace: Trace, width: int | None = None) -> Panel:
    """Return the load so far, of the prompt and of what was generated."""
    most = max(trace.header.experts, default=0)
    if width is not None and most * (_CELL + 1) + 27 > width:
        return _load_in_bars(trace)
    barred = width is None or most * (_CELL + 2) + 30 <= width
    table = Panel("Load so far: count · E / Σ count, 1.00 is fair; w: Σ weight · E / ΣΣ weight; "
                   "✗ dead (< 0.01), ▲ hot (≥ 2)")  # fmt: skip
    for name in ("layer", "phase", "n"):
        table.add_column(name, justify="right" if name == "n" else "left")
    for expert in range(most):
        table.add_column(str(expert), justify="right", width=_CELL)
    if barred:
        table.add_column("bars")
    for layer in routed_layers(trace):
        for phase in PHASES:
            load = load_of(trace, layer, phase)
            if not load.tokens:
                continue
            cells = [_load_cell(load, expert) for expert in range(len(load.share))]
            blank = [Text("")] * (most - len(cells))
            table.add_row(str(layer), phase, f"{load.tokens:,}", *cells, *blank,
                          *([bars(load.share)] if barred else []))  # fmt: skip
            weights = [Text(f"{weight:.2f}", "dim") for weight in load.weight]
            table.add_row("", "w", "", *weights, *blank,
                          *([bars(load.weight)] if barred else []))  # fmt: skip
    return table


def _load_in_bars(trace: Trace) -> Panel:
    table = Panel("Load so far: a bar for each expert’s count · E / Σ count, half high is fair; "
                   "✗ dead (< 0.01), ▲ hot (≥ 2)")  # fmt: skip
    for name in ("layer", "phase", "tokens", "load", "most", "dead and hot"):
        table.add_column(name, justify="right" if name in ("tokens", "most") else "left")
    for layer in routed_layers(trace):
        for phase in PHASES:
            load = load_of(trace, layer, phase)
            if load.tokens:
                flagged = [f"{expert}✗" for expert in load.dead] + [f"{e}▲" for e in load.hot]
                told = " ".join(flagged[:8]) + (f" +{len(flagged) - 8}" if flagged[8:] else "")
                table.add_row(str(layer), phase, f"{load.tokens:,}",
                              bars(load.share, _CELLS_OF_BARS), f"{load.share.max():.2f}",
                              told)  # fmt: skip
    return table


def _load_cell(load: Load, expert: int) -> Text:
    share = float(load.share[expert])
    mark = "✗" if expert in load.dead else "▲" if expert in load.hot else ""
    style = "bold red" if mark else ""
    return Text(f"{share:.2f}{mark}", style)


def bars(shares: np.ndarray, most: int | None = None) -> Text:
    """Return a bar for each share: half of the height is fair, all of it twice that or more.

    Where they are more than `most`, neighbours share a bar, the highest among them.
    """
    if most is not None and len(shares) > most:
        starts = np.linspace(0, len(shares), most, endpoint=False).astype(int)
        shares = np.maximum.reduceat(shares, starts)
    levels = np.clip(np.rint(shares / HOT * (len(_BARS) - 1)), 0, len(_BARS) - 1).astype(int)
    return Text("".join(_BARS[level] for level in levels))


def routers_panel(trace: Trace) -> Panel:
    """Return how sure each layer's router was, over the text."""
    read = trace.records[trace.records["read"]]
    table = Panel("Routers over the text: margin = least ranked score selected − best one not; "
                   "entropy = −Σ s log s / log E (1: undecided)")  # fmt: skip
    for name in ("layer", "margin, median", "10 %", "negative", "entropy, mean"):
        table.add_column(name, justify="right")
    for layer in routed_layers(trace):
        margin = read["margin"][:, layer].astype(np.float64)
        table.add_row(
            str(layer), significant(float(np.median(margin))),
            significant(float(np.quantile(margin, 0.1))), f"{float((margin < 0).mean()):.0%}",
            significant(float(entropy_of(trace, layer).mean())),
        )  # fmt: skip
    return table


def card_panel(trace: Trace, layer: int, expert: int) -> Panel:
    """Return an expert's card."""
    card = card_of(trace, layer, expert)
    table = Panel(f"Expert {layer}:{expert}, a hypothesis: lift = its share of the token's weight "
                   "over its share of all (none: 1.0)")  # fmt: skip
    table.show_header = False
    table.add_column("", style="dim")
    table.add_column()
    favourites = [f"{_word(trace, f.token)} ×{f.lift:.1f} (n={f.seen})" for f in card.favourites]
    partners = [f"{layer}:{other} ×{lift:.2f}" for other, lift in card.partners]
    table.add_row("load, weight", f"{card.share:.2f}, {card.weight:.2f} (fair: 1.00)")
    table.add_row("favourite tokens", "  ".join(favourites) or "none read three times or more")
    table.add_row("together with", "  ".join(partners) or "–")
    table.add_row("mean position", f"{card.position:.2f} (all tokens: 0.50)")
    return table


def view(
    trace: Trace,
    *,
    at: int | None = None,
    colouring: Colouring = "expert",
    layer: int | None = None,
    experts: Iterable[tuple[int, int]] = (),
) -> RenderableType:
    """Return all panels.

    Args:
        at: the token that is looked at; None: the last that was read.
        layer: whose experts colour the text; None: the first routed one.
        experts: (layer, expert) of the cards to show.
    """
    if not len(trace.records):
        return Text("Nothing was recorded yet.")
    read = np.flatnonzero(trace.records["read"])
    place = (int(read[-1]) if len(read) else 0) if at is None else at
    layers = routed_layers(trace)
    chosen = layer if layer is not None else layers[0] if layers else 0
    colouring = colouring if layers or colouring != "expert" else "surprise"
    panels: list[RenderableType] = [
        coloured_text(trace, colouring, chosen), "", legend(trace, colouring, chosen), "",
        heading(trace, place), candidates_panel(trace, place), lens_panel(trace, place),
    ]  # fmt: skip
    if layers and len(read):
        panels += [now_panel(trace, place), load_panel(trace), routers_panel(trace)]
        panels += [card_panel(trace, *expert) for expert in experts]
    return Group(*panels)


def heading(trace: Trace, at: int) -> Text:
    """Return a line on one token, and on the experts that are masked or forced."""
    record, header = trace.records[at], trace.header
    phase = "generated" if record["generated"] else "prompt"
    shown = Text(f"token {at + 1:,} of {len(trace.records):,}: {_text_at(trace, at)} ({phase}), ")
    shown.append(f"surprise {significant(float(record['surprise']))}, entropy "
                 f"{significant(float(record['entropy']))} nats", "bold")  # fmt: skip
    for word, names in (("masked", header.masked), ("forced", header.forced)):
        if names:
            shown.append(f"  {word}: {', '.join(names)}", "bold red")
    return shown


def _word(trace: Trace, token: int) -> str:
    return quoted(trace.word(token))


def _text_at(trace: Trace, at: int) -> str:
    return quoted(trace.word(trace.records["token"][at])) if 0 <= at < len(trace.texts) else "?"


def quoted(text: str) -> str:
    """Return a token's text within a line, cut where it is long."""
    shown = printable(text.replace("\n", "⏎").replace("\t", "⇥"), keep="")
    return f"‘{shown if len(shown) <= 24 else shown[:23] + '…'}’"
