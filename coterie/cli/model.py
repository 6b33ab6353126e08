"""`coterie model`: look into a model, and give it a longer context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from coterie.cli.console import console, emit_json, facts, next_step
from coterie.cli.words import Words, one_target, read_words
from coterie.foundation.errors import SettingsError, UserError, nearest

if TYPE_CHECKING:
    from coterie.model import DecoderSettings

_SHOW = "For example: coterie model show latest   or: coterie model show quickstart scale=tiny"
_EXTEND = "For example: coterie model extend latest context=1024 method=yarn"


class _Target(NamedTuple):
    """What a target means: settings, and the checkpoint they came from if there is one."""

    title: str
    model: DecoderSettings
    checkpoint: Path | None


def show(*words: str, tensors: bool = False, step: int | None = None, json: bool = False) -> None:
    """Show what a model is made of and what it costs: `coterie model show TARGET`.

    TARGET is a run's name, `latest`, the path of a run or checkpoint, or a preset (with
    `scale=tiny` and other `key=value` changes). Prints the layer tree with parameters (all, and
    active for one token), operations of a forward pass per token (mean over the context) and cache
    bytes per token (float32).

    Parameters
    ----------
    words
        The target, and changes if it is a preset.
    tensors
        List every tensor with its role and shape instead of the tree.
    step
        Use the checkpoint of this step instead of the newest.
    json
        Print JSON.
    """
    from coterie.cli.counting import cost_rows, counts_as_json, print_tree, weight_rows
    from coterie.model import count

    parsed = read_words(words)
    name = one_target(parsed, "model", _SHOW)
    target = _find(name, parsed, step)
    counts = count(target.model)
    rows = _tensor_rows(target) if tensors else []
    if json:
        where = None if target.checkpoint is None else str(target.checkpoint)
        found = {"checkpoint": where, **counts_as_json(counts)}
        found["weights"] = _weights(target)
        found["settings"] = target.model.model_dump(mode="json")
        emit_json({**found, "tensors": rows} if tensors else found)
        return
    console.print(Text.assemble((name, "heading"), f"  {target.title}\n"), soft_wrap=True)
    if tensors:
        _print_tensors(rows)
    else:
        print_tree(counts, console)
    console.print()
    share = counts.active_parameters / max(counts.parameters, 1)
    active = f"{counts.active_parameters:,} ({share:.0%})"
    sizes = [("parameters", f"{counts.parameters:,}"), ("active per token", active)]
    console.print(facts([*sizes, *cost_rows(counts), *weight_rows(_weights(target))]))
    if target.checkpoint is None:
        next_step(f"coterie train {name}  # train it")
    else:
        longer = f"context={2 * target.model.context} method=yarn"
        stretches = hasattr(target.model.position, "scaling")
        reads = (target.checkpoint / "tokenizer.json").is_file()
        steps = [f'coterie generate {name} "Once"  # write text with it'] if reads else []
        steps += [f"coterie model extend {name} {longer}"] if stretches else []
        if steps:
            next_step(*steps)


def extend(
    *words: str, name: str | None = None, step: int | None = None, json: bool = False
) -> None:
    """Give a trained model a longer context: `coterie model extend RUN context=N method=METHOD`.

    Makes a new run with the same weights whose rotary positions are stretched to N tokens. METHOD
    is linear, ntk, dynamic, yarn or llama3. A model that was extended before is extended from its
    original context; one without positions takes a context and no method.

    Parameters
    ----------
    words
        The run, `context=N` and `method=METHOD`.
    name
        The new run's name; by default the old one's with the context.
    step
        Use the checkpoint of this step instead of the newest.
    json
        Print JSON.
    """
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.exchange.extend import extend as extend_model
    from coterie.exchange.runs import write_derived_run

    target, length, method = _wish(read_words(words))
    loaded = load_model(target, step=step, on_damaged=tell_damaged)
    made = extend_model(loaded.decoder, length, method)
    context, way = made.decoder.settings.context, f"with {method} " if method else ""
    run = write_derived_run(
        loaded, made.decoder, name=name, what="extending", suffix=str(context),
        instead_of=str(loaded.decoder.settings.context),
        said=f"Extended {way}to {context:,} tokens.",
        origin={"method": method, "original_context": made.original, "factor": made.factor},
    )  # fmt: skip
    table = _before_and_after(loaded.decoder.settings, made.decoder.settings)
    if json:
        emit_json({
            "run": run.name, "path": str(run.path), "from": str(loaded.path),
            "original_context": made.original, "factor": made.factor, "method": method,
            "before": {key: old for key, old, _ in table},
            "after": {key: new for key, _, new in table},
        })  # fmt: skip
        return
    shown = Table(box=None, pad_edge=False)
    for column in ("", "before", "after"):
        shown.add_column(
            column, justify="right" if column else "left", style="" if column else "dim"
        )
    for row in table:
        shown.add_row(*row)
    console.print(shown)
    console.print(f"\nMade {run.path}/", soft_wrap=True)
    next_step(
        f"coterie evaluate {run.name} FILE  # its perplexity on long texts, to hold against "
        f"{target}'s",
        f"coterie train --resume {run.name} data.source=FILE  # a little training settles it",
        f'coterie generate {run.name} "Once"',
    )


def _wish(words: Words) -> tuple[str, int, str | None]:
    """Return the run to extend, the context to reach and the method.

    Raises:
        UserError: one is missing, or there is more than that.
    """
    words, length = words.take("context")
    words, method = words.take("method")
    target = one_target(words, "run", _EXTEND)
    if words.overrides or words.overlays:
        known = nearest((*words.overrides, "")[0].partition("=")[0], ["context", "method"])
        raise UserError(f"Extending takes context and method alone; {known}", hint=_EXTEND)
    if length is None or not length.isdecimal() or int(length) < 1:
        said = "was not named" if length is None else f"cannot be “{length}”"
        raise SettingsError(f"The context to reach {said}: a number of tokens.", hint=_EXTEND)
    return target, int(length), method


def _find(name: str, words: Words, step: int | None) -> _Target:
    """Return what a target means: a run or checkpoint if there is one of that name, or a preset.

    Raises:
        UserError: it means nothing; settings or checkpoint cannot be used.
    """
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import (
        is_checkpoint,
        list_checkpoints,
        locate_checkpoint,
        read_settings,
    )
    from coterie.checkpoint.check import model_settings
    from coterie.foundation.layers import read_settings_file
    from coterie.foundation.runs import find_run, list_runs
    from coterie.presets import preset_names

    path, runs = Path(name), [run.name for run in list_runs()]
    if not is_checkpoint(path) and name not in runs:
        is_run = name == "latest" or (path / "config.yaml").is_file()
        if name in preset_names() or (path.is_file() and not is_run):
            return _preset(name, words)
        if not is_run:
            known = nearest(name, [*runs, *preset_names()])
            raise UserError(f"There is no run, checkpoint or preset “{name}”; {known}", hint=_SHOW)
    if words.overrides or words.overlays:
        raise UserError("Only presets can be changed before they are shown.", hint=_SHOW)
    if not is_checkpoint(path) and not list_checkpoints((run := find_run(name)).checkpoints):
        values, checkpoint = read_settings_file(run.config), None
    else:
        checkpoint = locate_checkpoint(name, step, tell_damaged)
        values = read_settings(checkpoint)
    title = str(values.get("description") or "")
    return _Target(title, model_settings(values), checkpoint)


def _preset(name: str, words: Words) -> _Target:
    """Return what a preset or settings file means, its vocabulary taken from its tokenizer."""
    from coterie.api.planning import vocabulary
    from coterie.cli.train import resolve_words
    from coterie.train.pretraining import fill_vocabulary_size

    settings = resolve_words(name, words).settings
    settings = fill_vocabulary_size(settings, vocabulary(settings))
    return _Target(settings.description, settings.model, None)


def _weights(target: _Target) -> dict[str, Any]:
    """Return what the weights take in memory, by format, and on disk, where they lie in a file."""
    from coterie.checkpoint import checkpoint_bytes
    from coterie.checkpoint.layout import MODEL, stored
    from coterie.checkpoint.tensor_file import tensor_names
    from coterie.quantise import bytes_by_format, stored_kinds

    found: dict[str, Any] = {"bytes_in_memory": bytes_by_format(target.model)}
    if target.checkpoint is not None:
        file = stored(target.checkpoint, MODEL)
        kinds = stored_kinds(tensor_names(file))
        found["stored"] = min(kinds.values(), default="float")
        found["bytes_on_disk"] = checkpoint_bytes(file)
    return found


def _tensor_rows(target: _Target) -> list[dict[str, Any]]:
    """Return name, role, shape and type of every tensor; from the file where there is one."""
    import torch

    from coterie.checkpoint.layout import MODEL, stored
    from coterie.checkpoint.tensor_file import find_wholes, open_tensors
    from coterie.model import Decoder, parameter_roles
    from coterie.quantise import stored_kinds

    with torch.device("meta"):
        decoder = Decoder(target.model)
    roles: dict[str, str] = dict(parameter_roles(decoder))
    if target.checkpoint is None:
        shapes = {
            name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in decoder.state_dict().items()
        }
    else:
        with open_tensors(stored(target.checkpoint, MODEL)) as opened:
            shapes = {
                name: (list(whole.shape), str(whole.dtype).removeprefix("torch."))
                for name, whole in find_wholes(opened).items()
            }
        kinds = stored_kinds(shapes)
        of_part = {name: name.rpartition(".")[0] for name in shapes}
        roles |= {name: roles[of] for name, of in of_part.items() if of in kinds and of in roles}
    return [
        {"name": name, "role": roles.get(name, "buffer"), "shape": shape, "dtype": dtype}
        for name, (shape, dtype) in shapes.items()
    ]


def _print_tensors(rows: list[dict[str, Any]]) -> None:
    from coterie.cli.counting import wide

    table = Table(box=None, pad_edge=False)
    for column in ("tensor", "role", "shape", "type"):
        table.add_column(column, justify="right" if column == "shape" else "left", no_wrap=True)
    for row in rows:
        shape = " × ".join(f"{size:,}" for size in row["shape"]) or "1"
        table.add_row(row["name"], row["role"], shape, row["dtype"])
    wide(console).print(table)


def _before_and_after(old: DecoderSettings, new: DecoderSettings) -> list[tuple[str, str, str]]:
    """Return rows of what an extension changes: a name, before, after."""
    from coterie.cli.counting import flop
    from coterie.model import count

    rows = []
    both = (old, new)
    rows.append(("context", *(f"{each.context:,}" for each in both)))
    rows.append(("position", *(each.position.counts(1, 1).detail for each in both)))
    scalings: list[Any] = [getattr(each.position, "scaling", None) for each in both]
    if scalings[1] is not None:
        rows.append(("on cosines and sines", *(f"{each.turn_scale:.4f}" for each in scalings)))
        rows.append(("on all logits", *(f"{each.logit_scale:.4f}" for each in scalings)))
    counts = [count(each) for each in both]
    rows.append(("parameters", *(f"{each.parameters:,}" for each in counts)))
    rows.append(("forward per token", *(flop(each.flops_per_token()) for each in counts)))
    sizes = [c.cache_bytes_per_token * each.context for c, each in zip(counts, both, strict=True)]
    rows.append(("cache of a full context", *(f"{size:,.0f} bytes" for size in sizes)))
    return rows
