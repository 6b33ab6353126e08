"""Texts written during training: how a reader sees a model improve.

Each sample draws from its own seed, so it depends on the weights alone, and drawing it leaves
training's random states as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

from coterie.foundation.files import write_text_atomic
from coterie.foundation.runs import RunDirectory
from coterie.generate import Engine, SamplingSettings
from coterie.train.events import Sampled
from coterie.train.randomness import set_aside


def draw_samples(
    engine: Engine,
    prompts: Sequence[str],
    sampling: SamplingSettings,
    step: int,
) -> list[Sampled]:
    """Continue each prompt once and return the texts as events.

    Args:
        engine: generates with the model in training.
        prompts: what to go on from.
        sampling: how to draw; the same seed each time.
        step: optimizer steps done.
    """
    if sampling.compute == "auto":  # kernels would be compiled, and their threads spin, beside it
        sampling = sampling.model_copy(update={"compute": "torch"})
    with set_aside():
        return [
            Sampled(step=step, prompt=prompt, text=engine.generate(prompt, sampling).text)
            for prompt in prompts
        ]


def write_samples(run: RunDirectory, samples: Sequence[Sampled]) -> None:
    """Write the samples of one step into the run's directory, one file a step."""
    if not samples:
        return
    text = "\n\n".join(f"{sample.prompt}{sample.text}" for sample in samples)
    write_text_atomic(run.samples / f"step-{samples[0].step:08d}.txt", text + "\n")
