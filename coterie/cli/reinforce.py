"""`coterie align grpo`, `reinforce` and `ppo`: what a model writes is judged, and it learns."""

from __future__ import annotations

from typing import Any

from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import one_target, read_words

_USAGE = "For example: coterie align {kind} latest --reward metre --reward long_words:weight=0.1"


def grpo(
    *words: str, reward: list[str] | None = None, name: str | None = None, lora: int | None = None,
    dry_run: bool = False, json: bool = False,
) -> None:  # fmt: skip
    """Reinforce what is judged better than the other texts on its prompt (GRPO).

    `coterie align grpo RUN --reward KIND [--reward KIND:weight=0.1,clip=[-1,1]] [key=value ...]`
    writes several texts on each prompt, judges them, and makes the better ones likelier.
    `align.scaled=false align.aggregation=fixed` is Dr. GRPO.

    Parameters
    ----------
    words
        The run to begin with, and changes: `train.steps=300`, `align.kl=0.05`,
        `align.rollout.max_tokens=64`, `align.lines=[1,2,4,14]` and others.
    reward
        What judges: metre, rhyme, structure, archaic, long_words, fluency, repetition, length,
        copying, syntax, pattern, or function; several are added up.
    name
        The new run's name; by default the old one's with `-grpo`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _reinforce("grpo", words, reward, name, lora, dry_run=dry_run, json=json)


def reinforce(
    *words: str, reward: list[str] | None = None, name: str | None = None, lora: int | None = None,
    dry_run: bool = False, json: bool = False,
) -> None:  # fmt: skip
    """Reinforce what is judged better than the others' mean (REINFORCE, leave one out).

    `coterie align reinforce RUN --reward KIND [key=value ...]`; as `coterie align grpo`, with the
    mean of the other texts on a prompt as baseline and no division.

    Parameters
    ----------
    words
        The run to begin with, and changes.
    reward
        What judges; several are added up.
    name
        The new run's name; by default the old one's with `-reinforce`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _reinforce("reinforce", words, reward, name, lora, dry_run=dry_run, json=json)


def ppo(
    *words: str, reward: list[str] | None = None, name: str | None = None, lora: int | None = None,
    dry_run: bool = False, json: bool = False,
) -> None:  # fmt: skip
    """Reinforce with a value head that learns what is to be expected (PPO).

    `coterie align ppo RUN --reward KIND [key=value ...]`; the KL to the start is a cost of each
    token, advantages are generalised (`align.lam`), several steps learn from a rollout.

    Parameters
    ----------
    words
        The run to begin with, and changes.
    reward
        What judges; several are added up.
    name
        The new run's name; by default the old one's with `-ppo`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _reinforce("ppo", words, reward, name, lora, dry_run=dry_run, json=json)


def _reinforce(
    kind: str, words: tuple[str, ...], rewards: list[str] | None, name: str | None,
    lora: int | None, *, dry_run: bool, json: bool,
) -> None:  # fmt: skip
    """Do what the words ask for."""
    parsed = read_words(words)
    target = one_target(parsed, "run", _USAGE.format(kind=kind), "latest")
    from coterie.api.alignment import aligned, plan_alignment, run_alignment
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.cli.plan import plan_rows

    said: dict[str, Any] = {}
    if rewards:
        said["rewards"] = [_reward(each) for each in rewards]
    if lora is not None:
        said["lora"] = {"rank": lora}
    base = load_model(target, on_damaged=tell_damaged)
    settings = aligned(kind, base, said, parsed.layers())
    if dry_run:
        settings, plan = plan_alignment(settings)
        if json:
            emit_json({"plan": plan.summary(), "settings": settings.model_dump(mode="json")})
        else:
            console.print(facts(plan_rows(plan)))
        return
    run, result = run_alignment(kind, base, settings, name)
    if json:
        emit_json({"run": run.name, "path": str(run.path), **result.summary()})
    stderr.print(f"Report: {run.report}", soft_wrap=True)
    next_step(
        f"coterie generate {run.name} PROMPT  # write with it",
        f"coterie train --resume {run.name} train.steps=...  # go on for longer",
    )


def _reward(word: str) -> dict[str, Any]:
    """Return the settings of a reward told as `kind` or `kind:key=value,key=value`."""
    import yaml

    kind, _, rest = word.partition(":")
    pairs = yaml.safe_load("{" + rest.replace("=", ": ") + "}") if rest else {}
    return {"kind": kind, **pairs}
