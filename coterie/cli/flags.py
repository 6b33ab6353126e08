"""A flag that a verb does not have: which one was meant, or which setting."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.foundation.synonyms import SYNONYMS, meant_by

_FLAG = re.compile(r"--?[A-Za-z]")
# The verbs that take settings as key=value, and the part of a run that their keys begin in.
_TAKE_SETTINGS = {
    "train": "",
    "plan": "",
    "presets show": "",
    "model show": "",
    "generate": "sample.",
    "visualise": "sample.",
}


def unknown_flag(word: str, verb: str, flags: Iterable[str], hint: str | None = None) -> UserError:
    """Return the error for a flag that a verb does not have.

    Args:
        word: the flag as it was written, perhaps with `=value`.
        verb: the verb, such as `presets show`.
        flags: those that it has.
        hint: what else the reader can do.
    """
    name, _, value = word.partition("=")
    known = sorted({flag for flag in flags if flag.startswith("--")})
    known = [flag for flag in known if f"--{flag.removeprefix('--no-')}" not in known]
    choices = f"choices: {', '.join(known)}"
    shown = printable(name[:60], "")
    same = meant_by(name, known)
    meant = [] if same else _settings(name, _TAKE_SETTINGS.get(verb))
    if same := same or ([] if meant else get_close_matches(name, known, n=1, cutoff=0.6)):
        told = f"There is no flag {shown} here; did you mean {same[0]}? {choices}"
        return UserError(told, hint=hint or f"Run: coterie {verb} --help")
    if meant:
        told = " or ".join(meant[:3])
        return UserError(
            f"There is no flag {shown} here; did you mean the setting {told}? {choices}",
            hint=f"Settings are written without dashes: {meant[0]}={printable(value, '') or '...'}",
        )
    return UserError(
        f"There is no flag {shown} here; {choices}", hint=hint or f"Run: coterie {verb} --help"
    )


def refuse_flags(
    words: Iterable[str], verb: str, flags: Iterable[str], hint: str | None = None
) -> None:
    """Refuse the first word that looks like a flag, in a verb whose words may begin with a hyphen.

    Raises:
        UserError: there is such a word; see `unknown_flag` for the arguments.
    """
    for word in words:
        if _FLAG.match(word):
            raise unknown_flag(word, verb, flags, hint)


def _settings(name: str, below: str | None) -> list[str]:
    """Return the keys below a part of a run that a flag's name means."""
    if below is None:
        return []
    keys = sorted({key for each in SYNONYMS.values() for key in each})
    keys = [key for key in keys if key.startswith(below) and ("." in key or key == "seed")]
    found = meant_by(name, [key.removeprefix(below) for key in keys])
    return [each for each in found if each in {key.removeprefix(below) for key in keys}]
