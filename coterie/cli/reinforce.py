"""`coterie align grpo`, `reinforce` and `ppo`: what a model writes is judged, and it learns."""

from __future__ import annotations

from typing import Any

from coterie.cli.align import AlignFlags, run_aligned
from coterie.cli.console import next_step
from coterie.cli.words import one_target, read_words

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


def _reinforce(
    kind: str, words: tuple[str, ...], rewards: list[str] | None, flags: AlignFlags
) -> None:
    """Do what the words ask for."""
    parsed = read_words(words)
    target = one_target(parsed, "run", _USAGE.format(kind=kind), "latest")
    said = {"rewards": [_reward(each) for each in rewards]} if rewards else {}
    run = run_aligned(kind, target, said, parsed, flags)
    if run is not None:
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
