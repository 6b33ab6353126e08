"""Texts generated during training, step by step; the page's script adds a slider."""

import numpy as np

from coterie.train.events import Sampled
from coterie.visualise.figures import loss
from coterie.visualise.prose import has_tags, written
from coterie.visualise.reducers.quality import Evaluations, Samples
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series

_MOST_SAMPLES = 60


def samples_section(series: Series) -> str:
    steps = [(texts[0].step, texts) for texts in series[Samples].steps]
    if not steps:
        return ""
    if len(steps) > _MOST_SAMPLES:
        index = np.linspace(0, len(steps) - 1, _MOST_SAMPLES).round().astype(int)
        steps = [steps[i] for i in index]
    losses = {e.step: e.loss for e in series.validation}
    items = []
    for step, texts in steps:
        known = f" · validation loss {loss(losses[step])}" if step in losses else ""
        items.append(
            f'<li data-step="{step}"><h3>step {step:,}<small>{known}</small></h3>'
            f"{''.join(sample_text(sample) for sample in texts)}</li>"
        )
    tagged = any(has_tags(s.text) or has_tags(s.prompt) for _, texts in steps for s in texts)
    toggle = '<label class="toggle"><input type="checkbox"> show tags</label>' if tagged else ""
    prompted = any(sample.prompt for _, texts in steps for sample in texts)
    note = '<p class="note">In colour: the prompt, which was given.</p>' if prompted else ""
    return f'<div class="samples">{toggle}<ol>{"".join(items)}</ol></div>{note}'


def sample_text(sample: Sampled) -> str:
    """Return one sample, its prompt set apart whether or not the text repeats it."""
    text = sample.text.removeprefix(sample.prompt)
    prompt = f'<span class="prompt">{written(sample.prompt)}</span>' if sample.prompt else ""
    return f'<div class="sample">{prompt}{written(text)}</div>'


SAMPLES = Section("samples", "Samples through training", (Samples, Evaluations), samples_section)
