"""`coterie align grpo` and its like: what a model writes is judged, and it learns."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from coterie.cli.align import AlignFlags, run_aligned
from coterie.cli.console import console, emit_json, facts, next_step
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError

_PLAIN = AlignFlags()
_USAGE = "For example: coterie align {kind} latest --reward metre --reward long_words:weight=0.1"


def grpo(*words: str, reward: list[str] | None = None, flags: AlignFlags = _PLAIN) -> None:
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
    """
    _reinforce("grpo", words, reward, flags)


def reinforce(*words: str, reward: list[str] | None = None, flags: AlignFlags = _PLAIN) -> None:
    """Reinforce what is judged better than the others' mean (REINFORCE, leave one out).

    `coterie align reinforce RUN --reward KIND [key=value ...]`; as `coterie align grpo`, with the
    mean of the other texts on a prompt as baseline and no division.

    Parameters
    ----------
    words
        The run to begin with, and changes.
    reward
        What judges; several are added up.
    """
    _reinforce("reinforce", words, reward, flags)


def ppo(*words: str, reward: list[str] | None = None, flags: AlignFlags = _PLAIN) -> None:
    """Reinforce with a value head that learns what is to be expected (PPO).

    `coterie align ppo RUN --reward KIND [key=value ...]`; the KL to the start is a cost of each
    token, advantages are generalised (`align.lam`), several steps learn from a rollout.

    Parameters
    ----------
    words
        The run to begin with, and changes.
    reward
        What judges; several are added up.
    """
    _reinforce("ppo", words, reward, flags)


def rejection(*words: str, reward: list[str] | None = None, flags: AlignFlags = _PLAIN) -> None:
    """Learn the best of several texts on each prompt as if they were data (rejection tuning).

    `coterie align rejection RUN --reward KIND [key=value ...]`; each round writes
    `align.texts_per_prompt` texts on `align.prompts_per_rollout` prompts and keeps the best
    `align.keep`, which `align.updates` steps learn by the loss of fine-tuning.

    Parameters
    ----------
    words
        The run to begin with, and changes.
    reward
        What judges; several are added up.
    """
    _reinforce("rejection", words, reward, flags)


def pairs(
    *words: str,
    out: Path,
    reward: list[str] | None = None,
    count: int = 256,
    json: bool = False,
) -> None:
    """Make pairs for preferences by a reward: the best and the worst of several texts.

    `coterie align pairs RUN --reward KIND --out pairs.jsonl` writes `align.texts_per_prompt` texts
    on each prompt, as `coterie align rejection` would, and keeps two. Where all got the same there
    is no pair. Then: coterie align dpo RUN pairs.jsonl align.template=continuation

    Parameters
    ----------
    words
        The run that writes, and changes: `align.texts_per_prompt=16`, `align.prompts=…`, `seed=2`.
    out
        The JSONL file to write, which must not exist.
    reward
        What judges; several are added up.
    count
        Prompts to write on.
    json
        Print the result as JSON.
    """
    from coterie.api.alignment import aligned, made_pairs
    from coterie.api.model import tell_damaged
    from coterie.api.progress import count_bar
    from coterie.checkpoint import load_model
    from coterie.foundation.files import write_text_atomic

    parsed = read_words(words)
    target = one_target(parsed, "run", _USAGE.format(kind="pairs"), "latest")
    if out.exists():
        raise UserError(f"{out} exists already.", hint="Name another file with --out.")
    said = {"rewards": [read_reward(each) for each in reward]} if reward else {}
    base = load_model(target, on_damaged=tell_damaged)
    rows = []
    with count_bar("Writing", count) as tell:
        for row in made_pairs(aligned("rejection", base, said, parsed.layers()), count):
            rows.append(row)
            tell(len(rows))
    write_text_atomic(out, "".join(f"{dumps(row)}\n" for row in rows))
    apart = sum(row["chosen_reward"] - row["rejected_reward"] for row in rows)
    found = {"pairs": len(rows), "prompts": count, "margin": apart / max(len(rows), 1)}
    if json:
        emit_json({"out": str(out), **found})
    else:
        console.print(facts([(name, f"{value:,.3g}") for name, value in found.items()]))
        next_step(
            f"coterie align dpo {target} {out} align.template=continuation  # learn from them"
        )


def _reinforce(
    kind: str, words: tuple[str, ...], rewards: list[str] | None, flags: AlignFlags
) -> None:
    """Do what the words ask for."""
    parsed = read_words(words)
    target = one_target(parsed, "run", _USAGE.format(kind=kind), "latest")
    said = {"rewards": [read_reward(each) for each in rewards]} if rewards else {}
    run = run_aligned(kind, target, said, parsed, flags)
    if run is not None:
        next_step(
            f"coterie generate {run.name} PROMPT  # write with it",
            f"coterie train --resume {run.name} train.steps=...  # go on for longer",
        )


def read_reward(word: str) -> dict[str, Any]:
    """Return the settings of a reward told as `kind` or `kind:key=value,key=value`."""
    import yaml

    kind, _, rest = word.partition(":")
    pairs = yaml.safe_load("{" + rest.replace("=", ": ") + "}") if rest else {}
    return {"kind": kind, **pairs}
