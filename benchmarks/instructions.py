"""Instructions made from the shipped corpus, and how well a model answers them before and after.

Two kinds of rows, made from tagged speeches: “Who speaks: LINE”, answered by the speaker, and
“Continue as SPEAKER: LINE”, answered by the next line of the speech. Speakers are the --speakers
with the most lines. A tenth of the plays' scenes is held out whole, so that no held-out line was
tuned on. RUN is tuned by `coterie align sft` on the others. Told are, on held-out rows, before and
after: the nats per token of the answers, the share of answers (greedy) in the asked form, a known
speaker's name or one line that ends, and how often the speaker is right, beside always naming the
one who speaks most.

Run: python benchmarks/instructions.py RUN --rows 2000 --epochs 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

from coterie.align.encoding import encode, parts_of
from coterie.api.alignment import align
from coterie.checkpoint import load_model
from coterie.data.corpus import shakespeare
from coterie.evaluate.scoring import sequence_logprobs
from coterie.foundation.runs import runs_root
from coterie.generate.engine import Engine
from coterie.generate.request import Request
from coterie.generate.sampling import SamplingSettings
from coterie.tokenizer.chat import ChatTemplate

SPEECH = re.compile(r"<SPEAKER>([^<]+)</SPEAKER>\n(.+?)(?=\n\n|<|\Z)", re.S)


def rows_of(speakers: int, seed: int) -> tuple[list[dict], list[dict], list[str]]:
    """Return rows to learn from, held-out ones, and the speakers' names."""
    scenes = [scene for each in shakespeare() for scene in each.text.split("<SCENE>")]
    found = [[(who.strip(), [line for line in said.split("\n") if 20 <= len(line) <= 60])
              for who, said in SPEECH.findall(scene)] for scene in scenes]  # fmt: skip
    counts = Counter(who for scene in found for who, lines in scene for _ in lines)
    names = [who for who, _ in counts.most_common(speakers)]
    drawn = random.Random(seed)
    parts: tuple[list[dict], list[dict]] = ([], [])
    for scene in found:
        part = parts[drawn.random() < 0.1]
        for who, lines in scene:
            if who not in names:
                continue
            for line, after in itertools.pairwise(lines):
                part.append({"prompt": f"Continue as {who}: {line}", "completion": after})
            part += [{"prompt": f"Who speaks: {line}", "completion": who} for line in lines]
    for part in parts:
        drawn.shuffle(part)
    return *parts, names


def measured(target: str | Path, held: list[dict], names: list[str]) -> dict[str, float]:
    """Return the figures of a model on held-out rows."""
    loaded = load_model(target)
    template = ChatTemplate("play", loaded.tokenizer)
    total, count, asked = 0.0, 0, []
    rows, masks = [], []
    for row in held:
        said = [{"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]}]  # fmt: skip
        text = encode(loaded.tokenizer, parts_of(template, said))
        rows.append([*text.tokens.tolist(), loaded.tokenizer.named_end])
        masks.append(text.targets >= 0)
        asked.append(template.render(said[:1], ask=True))
    for logs, mask in zip(sequence_logprobs(loaded.decoder, rows), masks, strict=True):
        own = logs[: len(mask)].numpy()[mask]
        total, count = total - float(own.sum()), count + len(own)
    sampling = SamplingSettings(temperature=0.0, max_tokens=64, compute="torch")
    engine = Engine(loaded.decoder, loaded.tokenizer)
    requests = [Request(engine.encode_prompt(each), sampling, 0) for each in asked]
    texts = [each.text.strip() for each in engine.generate_many(requests)]
    who = [(row, text) for row, text in zip(held, texts, strict=True)
           if row["prompt"].startswith("Who")]  # fmt: skip
    formed = sum(text in names for _, text in who)
    formed += sum(bool(text) and "\n" not in text and not row["prompt"].startswith("Who")
                  for row, text in zip(held, texts, strict=True))  # fmt: skip
    most = max(Counter(row["completion"] for row, _ in who).values())
    return {
        "nats per token": total / count,
        "in the asked form": formed / len(held),
        "speaker right": sum(row["completion"] == text for row, text in who) / len(who),
        "always the likeliest": most / len(who),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--held", type=int, default=150)
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lora", type=int, help="rank; without, all weights move")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, held, names = rows_of(given.speakers, given.seed)
    file = runs_root() / f"instructions-{given.seed}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in train[: given.rows]))
    print(f"{len(train):,} rows, {len(held):,} held out; {', '.join(names)}", flush=True)
    settings = {"train.epochs": given.epochs, "train.sample_every": 0, "train.device": "cpu",
                "align.template": "play", "seed": given.seed,
                "train.optimizer.learning_rate": given.rate}  # fmt: skip
    if given.lora:
        settings["align.lora.rank"] = given.lora
    tuned = align("sft", given.run, file, settings, name=f"{Path(given.run).name}-instructed")
    rows = {"before": given.run, "after": runs_root() / tuned.name}
    found = {name: measured(target, held[: given.held], names) for name, target in rows.items()}
    print("| | " + " | ".join(found["before"]) + " |\n|---|" + "---:|" * len(found["before"]))
    for name, figures in found.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in figures.values()) + " |")


if __name__ == "__main__":
    main()
