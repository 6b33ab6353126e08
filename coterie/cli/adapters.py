"""`coterie align adapters` and `merge`: what a run with --lora learnt, apart from its model."""

from __future__ import annotations

from pathlib import Path

from coterie.cli.console import console, emit_json, facts, next_step
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError

_MERGE = "For example: coterie align merge mine adapters.safetensors --name merged"


def adapters(*words: str, out: Path, peft: bool = False, json: bool = False) -> None:
    """Write what a run with --lora learnt: `coterie align adapters RUN --out FILE`.

    The file holds A and B of each matrix, experts' included, and no weights of the model.
    `coterie align merge` puts them into the run that they were tuned from. With --peft it is a
    folder that PEFT loads upon that run's export, for dense layers.

    Parameters
    ----------
    words
        The run, which was tuned with --lora.
    out
        The file, or folder with --peft, to write.
    peft
        Write PEFT's format, by the names of `coterie model export`.
    json
        Print JSON.
    """
    from coterie.align.adapters import adapters_of, products, save_adapters
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model

    target = one_target(
        read_words(words), "run", "For example: coterie align adapters latest --out a.safetensors"
    )
    loaded = load_model(target, on_damaged=tell_damaged)
    found = adapters_of(loaded)
    align = loaded.settings["align"]
    if peft:
        from coterie.exchange.huggingface.adapters import export_adapters

        base = load_model(Path(align["base"])).decoder
        rank = max(each.shape[-2] for name, each in found.items() if name.endswith("lora_a"))
        export_adapters(base, products(found, align["lora"]["scale"]), rank, out)
    else:
        save_adapters(loaded, out)
    row = {"run": target, "out": str(out), "matrices": len(found) // 2,
           "parameters": sum(each.numel() for each in found.values())}  # fmt: skip
    if json:
        emit_json(row)
        return
    console.print(facts((key, f"{x:,}" if isinstance(x, int) else x) for key, x in row.items()))
    base_run = Path(align["base"]).parents[1].name
    next_step(
        f"coterie model export {base_run}  # the base: PeftModel.from_pretrained(base, “{out}”)"
        if peft
        else f"coterie align merge {base_run} {out}  # put them into a model again"
    )


def merge(*words: str, name: str | None = None, json: bool = False) -> None:
    """Put adapters into the model that they were tuned from: `coterie align merge RUN FILE`.

    Makes a new run with the weights W + s·B·A, those of the run that was tuned. A run with --lora
    itself is merged already.

    Parameters
    ----------
    words
        The run that they were tuned from, and the file of `coterie align adapters`.
    name
        The new run's name; by default the old one's with “merged”.
    json
        Print JSON.
    """
    from coterie.align.adapters import merge_adapters
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.exchange.runs import write_derived_run

    parsed = read_words(words)
    if len(parsed.targets) != 2:
        raise UserError(
            f"A run and a file of adapters are wanted, not {len(parsed.targets)} words.",
            hint=_MERGE,
        )
    target, file = parsed.targets
    loaded = load_model(target, on_damaged=tell_damaged)
    run = write_derived_run(
        loaded, merge_adapters(loaded, Path(file)), name=name, what="merging", suffix="merged",
        said=f"With the adapters of {Path(file).name}.", origin={"adapters": file},
    )  # fmt: skip
    if json:
        emit_json({"run": run.name, "path": str(run.path)})
        return
    console.print(f"Made {run.path}/", soft_wrap=True)
    next_step(
        f'coterie generate {run.name} --chat "A question"', f"coterie model export {run.name}"
    )
