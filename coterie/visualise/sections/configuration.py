"""The resolved configuration and the machine."""

from coterie.visualise.figures import count, size
from coterie.visualise.page import folded, pairs
from coterie.visualise.prose import settings
from coterie.visualise.reducers.course import Course
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def configuration_section(series: Series) -> str:
    parts = []
    if series.config.strip():
        code = f'<pre class="yaml"><code>{settings(series.config)}</code></pre>'
        parts.append(folded("Resolved configuration", code))
    if series.start:
        start = series.start
        entries: list[tuple[str, object]] = [("device", start.device)]
        entries.append(("precision", start.precision))
        if start.peak_flops:
            entries.append(("measured ceiling", f"{count(start.peak_flops)}FLOP/s"))
        entries.append(("tokens per step", f"{start.tokens_per_step:,}"))
        entries += [_machine_entry(name, value) for name, value in start.machine.items()]
        parts.append(f"<h3>Machine</h3>{pairs(entries)}")
    return "".join(parts)


def _machine_entry(name: str, value: str | int | float) -> tuple[str, object]:
    """Return one fact about the machine with its unit."""
    if name.endswith("_bytes") and not isinstance(value, str):
        return name.removesuffix("_bytes").replace("_", " "), size(value)
    return name.replace("_", " "), value


CONFIGURATION = Section(
    "configuration", "Configuration and machine", (Course,), configuration_section
)
