"""Ready-made configurations: one YAML file per system, read as the first layer of a run.

A preset file is a run's settings plus `scales`, named overlays such as `tiny`, a twin of the same
architecture that trains on a laptop CPU; `departures`, sentences on where it is not what the
system of its name was; and `extends`, another preset that it is laid over, scales included.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.layers import Layer, file_layer
from coterie.foundation.merging import plain
from coterie.foundation.paths import expand_home
from coterie.foundation.records import parse_yaml

FULL = "full"


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    files = resources.files("coterie.presets").iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Return a shipped preset's YAML, comments included.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in preset_names():
        raise SettingsError(
            f"There is no preset “{name}”; {nearest(name, preset_names())}",
            hint="List them: coterie presets list   A settings file of yours needs its path "
            "(./my.yaml).",
        )
    file = resources.files("coterie.presets") / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


def preset_layers(target: str, scale: str | None = None) -> list[Layer]:
    """Return a preset, or a settings file in the same form, and its scale as layers.

    Args:
        target: a shipped preset's name or the path of a YAML file.
        scale: one of the file's `scales`; `None` or “full” for the file as it stands.

    Raises:
        SettingsError: there is no such preset, file or scale.
    """
    name, values = _read(target)
    values.pop("departures", None)
    below = values.pop("extends", None)
    scales = values.pop("scales", {})
    scales = scales if plain(scales) is not None else {}
    layers, overlays = [Layer(name, values)], list[Layer]()
    if below is not None:
        under = str(plain(below))
        base = preset_layers(under)
        if scale in preset_scales(under):
            overlays = preset_layers(under, scale)[len(base) :]
        layers = [*base, *layers]
    if scale in (None, FULL):
        return layers
    if not isinstance(scales, dict) or not isinstance(scales.get(str(scale), {}), dict):
        raise SettingsError(f"scales in {name} is not a mapping of names to settings.")
    if scale not in scales and not overlays:
        raise SettingsError(
            f"{name} has no scale “{scale}”; {nearest(str(scale), [FULL, *scales])}"
        )
    own = [Layer(f"{name} at scale {scale}", scales[scale])] if scale in scales else []
    return [*layers, *overlays, *own]


def preset_departures(target: str) -> list[str]:
    """Return where a preset, or a settings file in the same form, departs from its system.

    Raises:
        SettingsError: there is no such preset or file, or it does not list sentences.
    """
    name, values = _read(target)
    told = plain(values.get("departures"))
    told = [] if told is None else told
    if not (isinstance(told, list) and all(isinstance(each, str) for each in told)):
        raise SettingsError(f"departures in {name} is not a list of sentences.")
    return told


def _read(target: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a preset or settings file in messages, and all that it holds."""
    path = Path(expand_home(target))
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        layer = file_layer(path)
        return layer.name, dict(layer.values)
    name = f"preset {target}"
    return name, parse_yaml(preset_text(target), name, written=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def preset_scales(name: str) -> list[str]:
    """Return the scales that a shipped preset offers, “full” first."""
    values: dict[str, Any] = parse_yaml(preset_text(name), name)
    below = values.get("extends")
    inherited = [] if below is None else preset_scales(below)[1:]
    return [FULL, *dict.fromkeys([*inherited, *(values.get("scales") or {})])]
