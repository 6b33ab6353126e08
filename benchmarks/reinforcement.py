"""Metre by reinforcement, without constraints: what a trained verse model gains, and at what cost.

Each row is a run that begins with RUN, on a seed of its own, as long as --steps says. Judged are
texts on held-out prompts (the same random streams for all): metrical lines by the checker that was
rewarded, and by one that was not: a line of 10 syllables, or 11, whose words of several syllables
all stand with their dictionary's stress on even places. Beside them what the frozen start makes of
the texts (nats per token), words of one syllable, distinct pairs of words, copied words, and the
CPU seconds of the whole run. The last row is how the held-out text itself goes on.

Run: python benchmarks/reinforcement.py RUN --seeds 3 --steps 240 --methods grpo ppo
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time

from coterie.align.methods import method_of
from coterie.align.reinforce.experience import Collector, Course
from coterie.align.reinforce.method import PromptData, ReinforceMethod
from coterie.align.reinforce.rollout import Writer
from coterie.align.reinforce.watch import figures_of
from coterie.align.rewards import Judge, Sample
from coterie.align.rewards.metre import lines_of
from coterie.api.alignment import align
from coterie.checkpoint import load_model
from coterie.language.verse.lines import words
from coterie.language.verse.phones import syllables
from coterie.language.verse.readings import readings
from coterie.train.settings import RunSettings

SHOWN = ("metrical", "other checker", "reference_nats", "monosyllables", "distinct_2", "copied")


def stands(line: str) -> bool:
    """Whether a line keeps its stresses by the dictionary alone; no licence, nothing learned."""
    at = 0
    for word in words(line):
        known = readings(word.key)[0]
        count = syllables(known.phones)
        if count > 1 and any(
            stress == "1" and (at + place) % 2 == 0
            for place, stress in enumerate(known.stresses.replace("-", ""))
        ):
            return False
        at += count
    return at in (10, 11)


def other(samples: list[Sample]) -> float:
    found = [lines_of(each.lines) for each in samples]
    return sum(bool(lines) and stands(lines[0]) for lines in found) / len(found)


def judged(run: str, method: ReinforceMethod, data, texts: int) -> dict[str, float]:
    """Return the figures of a run's texts on held-out prompts."""
    policy = load_model(run).decoder
    writer = Writer(policy, data.tokenizer, method.alignment.rollout, 256)
    judge = Judge(method.alignment.rewards, data.corpus)
    reference = method.reference()
    collector = Collector(
        method.alignment, policy, reference, writer, judge, contextlib.nullcontext
    )
    most = method.alignment.rollout.max_tokens
    prompts = data.valid[:texts]
    _, _, samples, scores = collector.judged(prompts, 1, 1 << 41, Course(most, 1))
    return figures_of(samples, data.corpus, scores) | {"other checker": other(samples)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--methods", nargs="+", default=["grpo"])
    parser.add_argument("--settings", default="{}", help="JSON of further settings")
    parser.add_argument("--judge", nargs="*", default=[], help="runs that were made before")
    given = parser.parse_args()
    rows: list[tuple[str, float, dict[str, float]]] = []
    made = [(name, 0.0) for name in given.judge]
    for kind in given.methods if not given.judge else ():
        for seed in range(given.seeds):
            began = time.process_time()
            settings = {
                "align.rewards": [{"kind": "metre"}, {"kind": "long_words", "weight": 0.1}],
                "train.steps": given.steps, "train.evaluate_every": 0, "train.sample_every": 0,
                "seed": seed, **json.loads(given.settings),
            }  # fmt: skip
            name = f"{given.run}-{kind}-{seed}"
            align(kind, given.run, settings=settings, name=name)
            made.append((name, time.process_time() - began))
    settings = RunSettings.model_validate(load_model(made[0][0]).settings)
    method = method_of(settings, None)
    assert isinstance(method, ReinforceMethod)
    _, data = method.prepare(settings, lambda sentence: None)
    assert isinstance(data, PromptData)
    rows.append(("start", 0.0, judged(given.run, method, data, given.texts)))
    rows += [(name, cpu, judged(name, method, data, given.texts)) for name, cpu in made]
    human = data.human[: given.texts]
    rows.append(("the text itself", 0.0, figures_of(human, data.corpus, None)
                 | {"other checker": other(human)}))  # fmt: skip
    print("| run | CPU s | " + " | ".join(SHOWN) + " |")
    print("|---|---:|" + "---:|" * len(SHOWN))
    for name, cpu, figures in rows:
        cells = (f"{figures[each]:.3f}" if each in figures else "–" for each in SHOWN)
        print(f"| {name} | {cpu:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
