"""`coterie demo`: the main job from end to end, in about three minutes on two CPU cores."""

from rich.panel import Panel
from rich.text import Text

from coterie.api.training import make_run, run_training
from coterie.cli.console import console, next_step, stderr
from coterie.cli.train import resolve_words
from coterie.cli.words import read_words
from coterie.foundation.errors import UserError
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.train.events import Evaluated, Sampled

_PROMPT = "<SPEAKER>JULIET</SPEAKER>\n"
_SHOWN = 320  # characters of each sample


def demo(*words: str, name: str | None = None) -> None:
    """Train a small mixture of experts on Shakespeare, watch it learn, and let it write.

    It prepares the shipped plays and poems, trains the preset `quickstart` with a live display,
    shows how its samples improved, writes a report and generates from a prompt.

    Parameters
    ----------
    words
        `key=value` changes to the preset, such as `train.steps=200` for a shorter demo.
    name
        The run's name; by default `demo`, with a number when that is taken.
    """
    parsed = read_words(words)
    if parsed.targets:
        raise UserError(
            f"The demo trains the preset “quickstart”; it takes no target “{parsed.targets[0]}”.",
            hint="Train something else: coterie train PRESET data.source=FILE",
        )
    resolved = resolve_words("quickstart", parsed)
    run = make_run(name, "demo")
    result = run_training(resolved.settings, run, preset="quickstart")
    _show_samples(run)
    _generate(run)
    loss = f" (validation loss {result.validation_loss:.3f})" if result.validation_loss else ""
    stderr.print(f"\nDone{loss}. The report with every curve: {run.report}", soft_wrap=True)
    next_step(
        f'coterie visualise {run.name} "To be"  # watch its experts at work; --web: in the browser',
        f'coterie generate {run.name} "To be, or not" temperature=0.7  # write more',
        f"coterie report {run.name} --plots plots  # the page again, and pictures",
        "coterie train quickstart data.source=my_book.txt  # your own text",
    )


def _show_samples(run: RunDirectory) -> None:
    """Print samples from the start, the middle and the end of training, with the loss then."""
    from coterie.language.drama import plain

    events = read_events(run.events)
    samples = [event for event in events if isinstance(event, Sampled)]
    losses = {event.step: event.loss for event in events if isinstance(event, Evaluated)}
    if not samples:
        return
    chosen = {0, len(samples) // 3, len(samples) - 1}
    for sample in (samples[index] for index in sorted(chosen)):
        loss = losses.get(sample.step)
        title = f"step {sample.step}" + (f", validation loss {loss:.3f}" if loss else "")
        text = plain(sample.prompt + sample.text).strip()[:_SHOWN]
        console.print(Panel(Text(text), title=Text(title), title_align="left", border_style="dim"))


def _generate(run: RunDirectory) -> None:
    """Write from a prompt with the finished model, as `coterie generate` would."""
    from coterie.api.model import load
    from coterie.cli.generate import show_stream

    stderr.print("\nThe finished model, asked to go on from Juliet's name:\n", style="heading")
    show_stream(load(run.path).stream(_PROMPT, max_tokens=300, temperature=0.8, seed=7), _PROMPT)
