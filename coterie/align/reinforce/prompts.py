"""What texts are written on: beginnings taken from the run's own text, or a file of prompts.

Which prompts a rollout has is a function of the seed and its number.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coterie.foundation.errors import DataError

_MOST = 4096  # lines of text that are looked at, evenly spread, where there are more


def prompts_of_text(text: str, lines: int, longest: int) -> list[str]:
    """Return the beginnings that a text offers: runs of its lines, each with its line mark.

    Args:
        lines: of a prompt; none of them is empty.
        longest: characters of a prompt.
    """
    rows = text.split("\n")[:-1]
    found = []
    for end in range(lines, len(rows)):
        prompt = "\n".join(rows[end - lines : end]) + "\n"
        whole = all(row.strip() for row in rows[end - lines : end + 1])
        if whole and len(prompt) <= longest:  # and the text goes on after it
            found.append(prompt)
    return spread(list(dict.fromkeys(found)), _MOST)


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: JSON lines with `prompt`, or one a line with its line mark.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The prompts {path} cannot be read: {error}") from error
    found = []
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        if path.suffix != ".jsonl":
            found.append(row + "\n")
            continue
        try:
            found.append(str(json.loads(row)["prompt"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: no JSON object with “prompt”.",
                hint='Each line is to be like {"prompt": "Once upon a time"}.',
            ) from error
    if not found:
        raise DataError(f"There is no prompt in {path}.")
    return found


def spread(items: Sequence[str], most: int) -> list[str]:
    """Return at most so many items, evenly spread over all."""
    if len(items) <= most:
        return list(items)
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, most).round()]


def drawn(prompts: Sequence[str], number: int, seed: int, rollout: int) -> list[str]:
    """Return the prompts of a rollout, each once as far as there are enough."""
    generator = np.random.default_rng([seed, rollout])
    places = generator.choice(len(prompts), number, replace=number > len(prompts))
    return [prompts[int(at)] for at in places]
