"""A run's settings from their layers: what they leave to the data is taken from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from coterie.data.cache import stores_in
from coterie.foundation.errors import CoterieError, SettingsError, nearest
from coterie.foundation.layers import Layer, Resolved, load_settings
from coterie.tokenizer.saving import FILE_NAME, load_tokenizer
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings

_TEXT = [("data", name) for name in ("source", "sources", "store")] + [("datasets",)]


def run_settings(layers: Sequence[Layer]) -> Resolved[RunSettings]:
    """Merge layers and validate them; a store that a later layer names brings its tokenizer along.

    One that the same layer or a later one names stays, and is refused if it is not the store's.

    Raises:
        SettingsError: anything is wrong.
    """
    found = load_settings(RunSettings, layers)
    stores = stores_in(found.settings.data)
    if not stores or _last(layers, *_TEXT) <= _last(layers, ("tokenizer",)):
        return found
    own = _own_tokenizer(stores[0], found.settings)
    return found if own is None else load_settings(RunSettings, [*layers, own])


def require_roles(found: Resolved[RunSettings]) -> None:
    """Make sure that the decoder has the roles that somebody named for its optimizer.

    Those that a preset names, or that are named by default and so in every run's own file, may be
    absent, for the decoder may be exchanged by words.

    Raises:
        SettingsError: it has not.
    """
    named: dict[str, str] = {}
    for key, origin in found.provenance.items():
        if key[:2] == ("train", "optimizer") and not origin.startswith("preset "):
            place = key[:-1] if key[-2] == "learning_rates" else key
            if place[-1] not in ("learning_rates", "decayed"):
                continue
            owner: Any = found.settings
            for part in place[:-1]:
                owner = getattr(owner, part)
            usual = type(owner).model_fields[place[-1]].get_default(call_default_factory=True)
            said = getattr(owner, place[-1]) if place == key else key[-1:]
            named |= dict.fromkeys((each for each in said if each not in usual), origin)
    if not named:
        return
    model = found.settings.model
    size = model.vocab_size or 2  # roles do not depend on it
    with torch.device("meta"):
        decoder = model.model_copy(update={"vocab_size": size}).build()
    roles = {each.role for each in role_parameters(decoder)}
    for role, origin in named.items():
        if role not in roles:
            raise SettingsError(
                f"This decoder has no parameters of the role “{role}”, which {origin} names; "
                f"{nearest(role, roles)}"
            )


def _own_tokenizer(store: Path, settings: RunSettings) -> Layer | None:
    """Return a store's tokenizer as a layer; None where it is what the settings say, or damaged."""
    try:
        tokenizer = load_tokenizer(store)
        if settings.tokenizer.mismatch(tokenizer) is None:
            return None
    except (OSError, CoterieError):
        return None  # told when the store is opened
    named = {"kind": "file", "path": str(store / FILE_NAME), "special_tokens": []}
    return Layer(f"the tokenizer of {store}", {"tokenizer": named})


def _last(layers: Sequence[Layer], *keys: tuple[str, ...]) -> int:
    """Return the number of the last layer that names one of some keys or below; −1: none does."""
    numbers = (n for n, layer in enumerate(layers) if any(_names(layer, key) for key in keys))
    return max(numbers, default=-1)


def _names(layer: Layer, key: tuple[str, ...]) -> bool:
    values: Any = layer.values
    for part in key:
        if not isinstance(values, Mapping) or part not in values:
            break
        values = values[part]
    else:
        return True
    return any(word.key[: len(key)] == key[: len(word.key)] for word in layer.words)
