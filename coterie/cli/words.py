"""The grammar of the command line's words: targets, `key=value`, `@overlay.yaml`, in any order."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer, file_layer, overrides_layer
from coterie.foundation.printable import printable
from coterie.foundation.synonyms import SYNONYMS, meant_by

_KEYS = sorted({key for keys in SYNONYMS.values() for key in keys if "." in key})
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.-]*=")


@dataclass(frozen=True)
class Words:
    """What the words of a command line say."""

    targets: tuple[str, ...]
    overrides: tuple[str, ...]  # "a.b=c"
    overlays: tuple[Path, ...]  # from "@file.yaml"

    @property
    def given(self) -> list[str]:
        """The words again, for another process."""
        return [*self.targets, *(f"@{path}" for path in self.overlays), *self.overrides]

    def layers(self) -> list[Layer]:
        """Return the overlay files and then the overrides as layers; the last one wins."""
        layers = [file_layer(path) for path in self.overlays]
        if self.overrides:
            layers.append(overrides_layer(self.overrides))
        return layers

    def take(self, key: str) -> "tuple[Words, str | None]":
        """Take one override out, such as `scale`, that is not a setting.

        Returns:
            The words without it and its value (the last one's), or `None`.
        """
        found = [word for word in self.overrides if word.partition("=")[0] == key]
        rest = tuple(word for word in self.overrides if word not in found)
        value = found[-1].partition("=")[2] if found else None
        return Words(self.targets, rest, self.overlays), value

    def take_settings(self, key: str) -> "tuple[Words, list[Layer]]":
        """Take out what is said of one setting, `key=…` and `key.part=…`, as layers."""
        found = tuple(word for word in self.overrides if re.match(rf"{key}[.=]", word))
        rest = tuple(word for word in self.overrides if word not in found)
        layers = [overrides_layer(found)] if found else []
        return Words(self.targets, rest, self.overlays), layers


def read_words(words: tuple[str, ...]) -> Words:
    """Split words into targets, overrides and overlays.

    A word counts as `key=value` when a plain name stands before its first `=`; a path or a prompt
    that looks so can be given after `./` or through standard input.
    """
    targets, overrides, overlays = [], [], []
    for word in words:
        if word.startswith("@") and len(word) > 1:
            overlays.append(Path(word[1:]))
        elif _ASSIGNMENT.match(word):
            overrides.append(word)
        else:
            targets.append(word)
    return Words(tuple(targets), tuple(overrides), tuple(overlays))


def one_target(words: Words, what: str, usage: str, default: str | None = None) -> str:
    """Return the single target among the words.

    Raises:
        UserError: there is none and no default, or there are several.
    """
    if len(words.targets) > 1:
        for word in words.targets:
            meant = meant_by(word.partition("=")[0], _KEYS) if "=" in word else []
            if meant:
                raise UserError(
                    f"“{printable(word, '')}” is not key=value; did you mean “{meant[0]}=…”?",
                    hint=usage,
                )
        listed = " ".join(words.targets)
        raise UserError(f"Expected one {what}, got {len(words.targets)}: {listed}", hint=usage)
    if words.targets:
        return words.targets[0]
    if default is not None:
        return default
    raise UserError(f"Which {what}? None was named.", hint=usage)


def standard_input() -> str:
    """Return all of standard input.

    Raises:
        UserError: it is not UTF-8 text.
    """
    try:
        # Decoded here: in some locales Python lets bytes through that are not text.
        raw = getattr(sys.stdin, "buffer", None)
        return sys.stdin.read() if raw is None else raw.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"Standard input is not UTF-8 text: {error}") from error
