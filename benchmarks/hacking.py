"""A reward that is easily won: archaic words, the more the better; and what the alarms say of it.

RUN is tuned by GRPO for the share of archaic words alone (`hacking:archaic`). Told is, at each
evaluation on held-out prompts, what the reward and the figures that nothing rewards did, beside the
start and how the held-out text itself goes on, the alarms with their advice, and texts of the last
evaluation. The report of the run shows the same.

Run: PYTHONPATH=benchmarks python benchmarks/hacking.py RUN --steps 80
"""

from __future__ import annotations

import argparse
import json
import time

from coterie.align.rewards.distribution import archaic_words
from coterie.api.alignment import align
from coterie.language.verse.lines import words

SHOWN = ("rewards/function", "archaic", "metrical", "monosyllables", "distinct_2",
         "reference_nats", "kl")  # fmt: skip


def archaic(prompts: list[str], completions: list[str]) -> list[float]:
    """Return archaic words as a share of each text's words."""
    return [archaic_words(each) / max(len(words(each)), 1) for each in completions]


def main() -> None:
    """Tune and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=80)
    given = parser.parse_args()
    began = time.process_time()
    settings = {
        "align.rewards": [{"kind": "function", "function": "hacking:archaic"}],
        "align.kl": 0.02, "align.judged_texts": 60, "align.stop_alarms": 3,
        "train.optimizer.learning_rate": 5e-4, "train.steps": given.steps,
        "train.evaluate_every": 20, "train.device": "cpu",
    }  # fmt: skip
    run = align("grpo", given.run, settings=settings, name="hacking")
    seconds = time.process_time() - began
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    judged = [each for each in events if each["kind"] == "held_out_judged"]
    rows = {"start": judged[0]["start"]}
    rows |= {f"step {each['step']}": each["figures"] for each in judged}
    print("| | " + " | ".join(SHOWN) + " |\n|---|" + "---:|" * len(SHOWN))
    for name, figures in (*rows.items(), ("the text itself", judged[-1]["human"])):
        values = (f"{figures[each]:.3f}" if each in figures else "–" for each in SHOWN)
        print(f"| {name} | " + " | ".join(values) + " |")
    for each in events:
        if each["kind"] == "alarm":
            print(f"step {each['step']}: {each['figure']} {each['value']:.3f}, bound "
                  f"{each['bound']:.3f}: {each['message']}")  # fmt: skip
    print(f"{seconds:.0f} s of the processor")


if __name__ == "__main__":
    main()
