"""`coterie visualise`: watch a model write, record what it does, and look at a record again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from coterie.cli.console import console, emit_json, next_step, note
from coterie.cli.flags import refuse_flags
from coterie.cli.watch import open_text, require_terminal
from coterie.cli.web import NO_PAGE, PageFlags, export, show_traces, show_writing
from coterie.cli.words import Words, read_words, standard_input
from coterie.foundation.errors import UserError
from coterie.foundation.traces import Trace, TraceWriter, is_trace, read_trace

if TYPE_CHECKING:
    from coterie.api.model import Model
    from coterie.foundation.layers import Layer
    from coterie.generate.watched import WatchedText
    from coterie.visualise.live.source import LiveText

_USAGE = 'For example: coterie visualise latest "To be"   or, a record: coterie visualise FILE'
_FLAGS = ("--record", "--plain", "--json", "--colour", "--layer", "--expert", "--at", "--mask",
          "--force", "--step", "--device", "--web", "--export", "--host", "--port")  # fmt: skip
_AS_IT_IS = "A record is shown as it is: it takes no prompt, settings, --record, --mask or --force."
_EXPORTED_THERE = (
    "In the browser, texts are exported by a button: leave --record and --export out, or --web."
)
_EXPERT = re.compile(r"(\d{1,9}):(\d{1,9})")


@Parameter(name="*")
@dataclass(frozen=True)
class Look:
    """What is looked at."""

    colour: Annotated[
        Literal["expert", "surprise", "entropy"],
        Parameter(
            help="What colours the text: expert (of most weight in --layer), surprise or entropy."
        ),
    ] = "expert"
    layer: Annotated[
        int | None,
        Parameter(
            help="The layer whose experts colour the text; by default the first that has experts."
        ),
    ] = None
    expert: Annotated[
        tuple[str, ...],
        Parameter(help="Show this expert's card, as LAYER:EXPERT; may be given several times."),
    ] = ()
    at: Annotated[
        int | None,
        Parameter(help="The token to look at, counted from 1; by default the last that was read."),
    ] = None

    def asked(self) -> dict[str, Any]:
        """Return what the panels take, but for the place."""
        experts = _experts(self.expert, "--expert")
        return {"colouring": self.colour, "layer": self.layer, "experts": experts}


_LOOK = Look()


@Parameter(name="*")
@dataclass(frozen=True)
class Hand:
    """A hand in the routing."""

    mask: Annotated[
        tuple[str, ...],
        Parameter(
            help="Let no token go to this expert, as LAYER:EXPERT; may be given several times."
        ),
    ] = ()
    force: Annotated[
        tuple[str, ...],
        Parameter(
            help="Send every token to this expert, as LAYER:EXPERT; may be given several times."
        ),
    ] = ()

    def by_layer(self) -> tuple[dict[int, tuple[int, ...]], ...]:
        """Return the masked experts of each layer, and the forced ones."""
        return (
            _by_layer(_experts(self.mask, "--mask")), _by_layer(_experts(self.force, "--force"))
        )  # fmt: skip


_NO_HAND = Hand()


def visualise(
    *words: Annotated[str, Parameter(allow_leading_hyphen=True)],
    record: Path | None = None,
    plain: bool = False,
    json: bool = False,
    look: Look = _LOOK,
    hand: Hand = _NO_HAND,
    page: PageFlags = NO_PAGE,
    step: int | None = None,
    device: str = "auto",
) -> None:
    """Watch a model write: `coterie visualise RUN PROMPT [key=value ...]`, or a record: `… FILE`.

    On a terminal the panels move while the text is written, and answer to keys (`?` names them);
    with --plain or --json they are printed once. Settings are those of `coterie generate`. In the
    browser several records stand side by side.

    Parameters
    ----------
    words
        The run, the prompt (`-`: standard input) and settings; or recorded files.
    record
        Also write all of it to this file, which opens again without the model.
    plain
        Print once, at the end, without colour: for pipes and logs.
    json
        Print the figures of all panels as JSON.
    step
        Use the checkpoint of this step instead of the newest.
    device
        Where to compute: auto, cpu, cuda, mps.
    """
    said = read_words(words)
    refuse_flags(said.targets, "visualise", _FLAGS)
    asked = look.asked()
    printed = plain or json or page.export is not None
    if is_trace(said.targets[0] if said.targets else ""):
        if record or hand != _NO_HAND:
            raise UserError(_AS_IT_IS, hint=_USAGE)
        traces = _replayed(said, several=page.asked)
        if not (page.asked or printed):
            _replay(said.targets[0], next(iter(traces.values())), look)
            return
    elif page.web or not printed:
        if page.web and (record or page.export):
            raise UserError(_EXPORTED_THERE)
        _write_on(said, step, device, record, hand, look, page)
        return
    else:
        model, prompt, layers = _loaded(said, step, device)
        text = model.watch_with(prompt, model.sampling(*layers), *hand.by_layer())
        traces = {prompt or model.name: _write(text, record, asked)}
    if page.export:
        export(page.export, traces)
    if page.web:
        show_traces(traces, page)
    if not page.asked:
        _show(next(iter(traces.values())), asked, look.at, plain=plain, json=json)
    if record is not None:
        next_step(f"coterie visualise {record}  # look at it again, without the model")


def _replay(path: str, trace: Trace, look: Look) -> None:
    """Show a record in a view."""
    from coterie.visualise.live.source import LiveText

    _check(trace.header.experts, look.asked())
    at = _place(look.at, trace)
    require_terminal(f"coterie visualise {path} --plain")
    open_text(LiveText(trace=trace), look.asked(), at)


def _write_on(
    said: Words,
    step: int | None,
    device: str,
    record: Path | None,
    hand: Hand,
    look: Look,
    page: PageFlags,
) -> None:
    """Let a model write where it can be told to write on otherwise: a page, or a view."""
    if page.web:
        model, prompt, layers = _loaded(said, step, device)
        show_writing(model, layers, prompt, (hand.mask, hand.force), page)
    else:
        _open(said, step, device, record, hand, look)


def _open(
    said: Words, step: int | None, device: str, record: Path | None, hand: Hand, look: Look
) -> None:
    """Let a model write in a view that takes a hand."""
    require_terminal('coterie visualise RUN "PROMPT" --plain')
    from coterie.visualise.live.apart import TextApart

    if said.targets[1:] == ("-",):
        raise UserError("The view reads keys from the terminal, so no prompt: write it out.")
    live = TextApart(_live, said, step, device, record, hand, look)
    open_text(live, look.asked(), None if look.at is None else max(look.at - 1, 0))


def _live(
    said: Words, step: int | None, device: str, record: Path | None, hand: Hand, look: Look
) -> LiveText:
    """Return the text that a view shows, in the process that writes it."""
    from coterie.visualise.live.source import LiveText

    model, prompt, layers = _loaded(said, step, device)
    sampling = model.sampling(*layers)
    text = model.watch_with(prompt, sampling, *hand.by_layer())
    _check(text.header.experts, look.asked())

    def write(
        prompt: Sequence[int], written: Sequence[int], masked: Any, forced: Any, steered_from: int
    ) -> WatchedText:
        return model.watch_with(
            prompt, sampling, masked, forced, written=written, steered_from=steered_from
        )

    live = LiveText(text, write=write)
    if record is not None:
        live.record(record)
    return live


def _replayed(said: Words, *, several: bool) -> dict[str, Trace]:
    """Read the records that words name, by their names."""
    others = said.targets[1:]
    if said.overrides or (others and not (several and all(map(is_trace, others)))):
        raise UserError(_AS_IT_IS, hint=_USAGE)
    traces = {}
    for path in said.targets:
        trace = traces[Path(path).name] = read_trace(path)
        if trace.ending is None:
            note(f"the record ends early, after {len(trace.records):,} tokens; they are whole.")
    return traces


def _show(trace: Trace, asked: dict[str, Any], at: int | None, *, plain: bool, json: bool) -> None:
    """Print all panels of a trace, or their figures."""
    from coterie.visualise.console import SafeConsole
    from coterie.visualise.routing import figures_of
    from coterie.visualise.watching import view

    _check(trace.header.experts, asked)
    place = _place(at, trace)
    if json:
        emit_json(figures_of(trace))
        return
    out = SafeConsole(no_color=True, force_terminal=False, width=140) if plain else console
    out.print(view(trace, at=place, **asked), soft_wrap=not console.is_terminal)


def _loaded(said: Words, step: int | None, device: str) -> tuple[Model, str, Sequence[Layer]]:
    """Load the run; return it with the prompt and what was said of drawing."""
    from coterie.api.model import load
    from coterie.quantise import chosen_weights

    said, weights = said.take_settings("weights")
    if not said.targets:
        raise UserError("Which run, or which record? None was named.", hint=_USAGE)
    prompt = " ".join(said.targets[1:])
    if prompt == "-":
        prompt = standard_input().removesuffix("\n")
    model = load(said.targets[0], step=step, device=device, weights=chosen_weights(*weights))
    return model, prompt, said.layers()


def _write(text: WatchedText, record: Path | None, asked: dict[str, Any]) -> Trace:
    """Let the text be written and recorded; return all of it."""
    import numpy as np

    _check(text.header.experts, asked)
    parts, texts, words = [np.empty(0, text.header.record_type())], [], {}
    with ExitStack() as stack:
        writer = stack.enter_context(TraceWriter(record, text.header)) if record else None
        for seen in text:
            parts.append(seen.records)
            texts += seen.texts
            words |= seen.words
            if writer is not None:
                writer.add(seen.records, seen.texts, seen.words)
        if writer is not None:
            writer.end(text.finish_reason or "length")
    return Trace(text.header, np.concatenate(parts), texts, words, text.finish_reason)


def _experts(words: Sequence[str], flag: str) -> list[tuple[int, int]]:
    """Return the experts that words such as 2:5 name."""
    found = [(word, _EXPERT.fullmatch(word)) for word in words]
    for word, match in found:
        if match is None:
            raise UserError(f"{flag} {word} is no expert.", hint=f"As LAYER:EXPERT: {flag} 1:5")
    return [(int(match[1]), int(match[2])) for _, match in found if match]


def _by_layer(experts: Sequence[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for layer, expert in experts:
        found[layer].append(expert)
    return {layer: tuple(some) for layer, some in found.items()}


def _check(counts: tuple[int, ...], asked: dict[str, Any]) -> None:
    """Refuse to show layers and experts that the model has not."""
    routed = [layer for layer, count in enumerate(counts) if count]
    has = f"Layers with experts: {', '.join(map(str, routed)) or 'none'}."
    if asked["layer"] is not None and asked["layer"] not in routed:
        raise UserError(f"Layer {asked['layer']} has no experts. {has}")
    for layer, expert in asked["experts"]:
        if layer not in routed:
            raise UserError(f"There is no expert {layer}:{expert}. {has}")
        if expert >= counts[layer]:
            raise UserError(f"There is no expert {layer}:{expert}: layer {layer} has the experts "
                            f"0 to {counts[layer] - 1}.")  # fmt: skip


def _place(at: int | None, trace: Trace) -> int | None:
    if at is not None and not 1 <= at <= len(trace.records):
        raise UserError(f"--at {at}: the text has the tokens 1 to {len(trace.records):,}.")
    return None if at is None else at - 1
