"""`kill -9` at random moments of every command that writes: the old, the new, or mended next time.

    python scripts/kills.py --rounds 50 --seed 1

Each round starts a command in a process of its own, kills it somewhere between its start and the
time it takes alone, and looks at what stands: the old result or the new one, whole, or none where
there was none. Then the next command runs, must succeed (or say that all is done already), and must
leave nothing hidden behind. Prints a table and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import (
    OTHER,
    SETTINGS,
    TEXT,
    Tally,
    alone,
    copy,
    digest,
    is_sound,
    leftovers,
    options_of,
    refused_in_words,
    result_of,
    room,
    workshop,
)
from processes import start as begin

PREPARE = ["data", "prepare", "text.txt", "--out", "store", "--tokenizer", "characters"]


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes:
        words: the command.
        found: returns what it wrote, as a hash; "" if nothing stands there.
        base: which folder it starts in.
        again: the next command, if it is another.
        unfinished: whether something else than the old and the new may stand until then: a run that
            is half trained.
        training: it is killed between its first step and its end, so not while it only begins; and
            in every other round the newest of several checkpoints is cut short after the kill.
    """

    words: list[str]
    found: Callable[[Path], str]
    base: str
    again: list[str] | None = None
    unfinished: bool = False
    training: bool = False


def _store(folder: Path) -> str:
    place = folder / "store"
    assert not place.exists() or is_sound(place), "an unsound store stands there"
    return digest(place)


def _run(name: str) -> Callable[[Path], str]:
    return lambda folder: result_of(folder / "runs" / name)


def _weights(folder: Path) -> str:
    step = folder / "runs" / "new" / "checkpoints" / "step-00000000"
    assert not (folder / "runs" / "new").exists() or (folder / "runs/new/config.yaml").exists()
    return digest(step / "model.safetensors")


def _pictures(folder: Path) -> str:
    for each in (folder / "plots").glob("[!.]*"):
        tail = each.read_bytes()[-40:]
        assert b"</svg>" in tail or b"IEND" in tail, f"{each.name} is cut"
    return digest(folder / "plots") if (folder / "plots" / "overview.png").exists() else ""


def _part(number: int, out: str) -> list[str]:
    part = ["--tokenizer", "bytes", "--part", f"{number}/2", "--resume"]
    return ["data", "prepare", "texts", "--out", out, *part]


def _made(name: str) -> Callable[[Path], str]:
    return lambda folder: digest(folder / name)


STREAM = ["data.stream={block: 300, head: 900}", "data.source=rows.jsonl", "data.split=documents"]
TRAIN = ["train", "tiny.yaml", "--name", "new"]
ROUTED = """
data: {packing: {kind: isolated}}
model:
  dropout: 0.1
  feedforward:
    kind: moe
    experts: [{count: 4, mlp: {kind: gated, width: 16}}]
    experts_per_token: 2
    balance: {kind: bias}
train: {gradient_accumulation: 2, clip: {kind: adaptive}, evaluate_every: 2, steps: 16}
"""
VARIANTS = {
    "adamw, averaged, in the background": """
data: {source: text.txt}
train: {ema: 0.9, save_in_background: true}
""",
    "adafactor, augmented": """
data:
  source: text.txt
  augment: [{kind: token_dropout, share: 0.1}, {kind: replacement, share: 0.1}]
train: {optimizer: {kind: adafactor}}
""",
    "muon, curriculum": """
data:
  source: text.txt
  packing: {kind: stream}
  curriculum: {length: {kind: steps, values: [8, 16], begins: [0, 4]}}
train: {optimizer: {kind: muon}}
""",
    "merged, in the background": """
data: {sources: {one: text.txt, two: other.txt}, mix: {kind: equal}}
train: {save_in_background: true, keep_every: 4}
""",
    "adamw8bit": """
data: {source: text.txt}
model: {width: 64}
train: {optimizer: {kind: adamw8bit}}
""",
    "streamed": """
data: {source: rows.jsonl, split: documents, stream: {block: 300, head: 900}}
""",
    "everything": """
data:
  sources: {one: text.txt, two: other.txt}
  packing: {kind: stream}
  augment: [{kind: token_dropout, share: 0.1}]
  curriculum: {length: {kind: steps, values: [8, 16], begins: [0, 4]}}
train: {ema: 0.9, save_in_background: true, optimizer: {kind: muon}, keep_every: 4}
""",
}
"""What runs are made of besides `ROUTED`, by the name of the case."""
CASES = {
    "data prepare": Case(PREPARE, _store, "base"),
    "data prepare --replace": Case(
        [*PREPARE[:-1], "bytes", "--replace"], _store, "stored"
    ),
    "data prepare --part --resume": Case(_part(2, "part"), _made("part"), "stored"),
    "data join": Case(
        ["data", "join", "part-1", "part-2", "--out", "store", "--replace"], _store, "stored"
    ),
    "data clean": Case(
        ["data", "clean", "gutenberg", "text.txt", "--out", "clean", "--report", "told.jsonl"],
        _made("clean"),
        "stored",
    ),
    "data dedup": Case(
        ["data", "dedup", "rows.jsonl", "--out", "kept.jsonl", "--report", "told.jsonl"],
        _made("kept.jsonl"),
        "stored",
    ),
    "data blend": Case(
        ["data", "blend", "text.txt", "other.txt", "--out", "mixed", "--tokenizer", "bytes",
         "--ngram", "3", "--share", "0.05"],
        _made("mixed"),
        "stored",
    ),
    "data merge --copy": Case(
        ["data", "merge", "store", "other", "--out", "merged", "--copy", "--replace"],
        _made("merged"),
        "stored",
    ),
    "train data.store=[…]": Case(
        ["train", "tiny.yaml", "data.store=[store, other]", "tokenizer.kind=characters",
         "--name", "new"],
        _run("new"), "stored", ["train", "--resume", "new"], unfinished=True,
    ),
    "train data.stream": Case(
        ["train", "tiny.yaml", *STREAM, "--name", "new"],
        _run("new"), "stored", ["train", "--resume", "new"], unfinished=True,
    ),
    "train": Case(TRAIN, _run("new"), "base", ["train", "--resume", "new"], unfinished=True),
    "train --resume": Case(
        ["train", "--resume", "mine", "train.steps=12"], _run("mine"), "trained", unfinished=True
    ),
    "model import": Case(["model", "import", "hf", "--name", "new"], _weights, "trained"),
    "model extend": Case(
        ["model", "extend", "mine", "context=32", "method=linear", "--name", "new"],
        _weights,
        "trained",
    ),
    "model quantise": Case(
        ["model", "quantise", "mine", "--weights", "int4", "--name", "new"], _weights, "trained"
    ),
    "model export hf": Case(
        ["model", "export", "mine", "--out", "out"], lambda f: digest(f / "out"), "trained"
    ),
    "model export gguf": Case(
        ["model", "export", "mine", "--format", "gguf", "--out", "out.gguf"],
        lambda f: digest(f / "out.gguf"),
        "trained",
    ),
    "tokenizer train": Case(
        ["tokenizer", "train", "text.txt", "--out", "tok.json", "--vocab-size", "300", "--replace"],
        lambda f: digest(f / "tok.json"),
        "trained",
    ),
    "report": Case(
        ["report", "mine", "--out", "page.html"], lambda f: digest(f / "page.html"), "trained"
    ),
    "report --plots": Case(
        ["report", "mine", "--out", "page.html", "--plots", "plots"], _pictures, "trained"
    ),
    "generate --prompts": Case(
        ["generate", "mine", "--prompts", "asked.jsonl", "--out", "told.jsonl"],
        lambda f: digest(f / "told.jsonl"),
        "trained",
    ),
    "presets copy": Case(
        ["presets", "copy", "quickstart", "mine.yaml", "--force"],
        lambda f: digest(f / "mine.yaml"),
        "trained",
    ),
}  # fmt: skip
ALIGNED = ["train.steps=12", "train.checkpoint_every=2", "train.evaluate_every=4",
           "train.sample_every=0"]  # fmt: skip
ROLLOUTS = ["align.prompts=lines.txt", "align.updates=2", "align.rollout.max_tokens=6",
            "align.prompts_per_rollout=2", "align.texts_per_prompt=4"]  # fmt: skip
CASES |= {
    f"align: {words[0]}": Case(
        ["align", words[0], "mine", *words[1:], *ALIGNED, "--name", "new"],
        _run("new"), "trained", ["train", "--resume", "new"], unfinished=True, training=True,
    )
    for words in (
        ["grpo", "--reward", "pattern:regex=e", *ROLLOUTS],
        ["sft", "answers.jsonl", "--lora", "2", "align.template=plain", "train.batch_size=4"],
        ["ppo", "--reward", "pattern:regex=e", *ROLLOUTS],
        ["rejection", "--reward", "pattern:regex=e", *ROLLOUTS],
        ["dpo", "pairs.jsonl", "align.template=plain", "train.batch_size=4"],
    )
}  # fmt: skip
CASES |= {
    f"train: {name}": Case(
        ["train", "plain.yaml", *TRAIN[2:], "@routed.yaml", f"@variant-{number}.yaml"],
        _run("new"), "base", ["train", "--resume", "new"], unfinished=True, training=True,
    )
    for number, name in enumerate(VARIANTS)
}  # fmt: skip


def bases(root: Path) -> dict[str, Path]:
    """Make the folders that the commands start in."""
    base = workshop(root / "base")
    (base / "other.txt").write_text("".join(f"Once more: {n * n}.\n" for n in range(90)))
    (base / "plain.yaml").write_text(SETTINGS.replace("source: text.txt, ", ""))
    (base / "routed.yaml").write_text(ROUTED)
    rows = [json.dumps({"text": TEXT[at : at + 90]}) for at in range(0, len(TEXT), 90)]
    (base / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows * 2))
    for number, text in enumerate(VARIANTS.values()):
        (base / f"variant-{number}.yaml").write_text(text)
    stored = copy(base, root / "stored")
    (stored / "texts").mkdir()
    for number in range(4):
        (stored / "texts" / f"{number}.txt").write_text(TEXT * (number + 1))
    (stored / "other.txt").write_text(OTHER)
    other = [*PREPARE[:4], "other", *PREPARE[5:]]
    for words in (PREPARE, other, _part(1, "part-1"), _part(2, "part-2")):
        child = alone(words, stored)
        assert child.code == 0, child.said
    trained = copy(base, root / "trained")
    for words in (
        ["train", "tiny.yaml", "--name", "mine"],
        ["model", "export", "mine", "--out", "hf"],
        ["tokenizer", "train", "text.txt", "--out", "tok.json", "--vocab-size", "280"],
    ):
        child = alone(words, trained)
        assert child.code == 0, child.said
    (trained / "page.html").write_text("old")
    (trained / "mine.yaml").write_text("old")
    (trained / "asked.jsonl").write_text('{"prompt": "a", "max_tokens": 40}\n' * 20)
    (trained / "lines.txt").write_text("a\nb c\nthe\nfool\nsays\n" * 4)
    row = '{"prompt": "so says", "completion": " he"}\n'
    (trained / "answers.jsonl").write_text(row * 20)
    (trained / "pairs.jsonl").write_text(
        '{"prompt": "so says", "chosen": " he", "rejected": " the fool"}\n' * 20
    )
    return {"base": base, "stored": stored, "trained": trained}


def _wait_for_steps(folder: Path) -> None:
    """Wait until a run has begun."""
    record, patience = (
        folder / "runs" / "new" / "events.jsonl",
        time.monotonic() + 600,
    )  # a busy machine's
    while not (record.exists() and b'"run_started"' in record.read_bytes()):
        assert time.monotonic() < patience, "the run did not begin"
        time.sleep(0.002)


def _trained(folder: Path) -> float:
    """Return the seconds from the beginning of a run to its end, as its record tells."""
    lines = (folder / "runs" / "new" / "events.jsonl").read_text().splitlines()
    times = {event["kind"]: event["time"] for event in map(json.loads, lines)}
    return times["run_ended"] - times["run_started"]


def _cut_short(run: Path, *, wanted: bool) -> bool:
    """Damage the newest of several checkpoints, if wanted; return whether that was done."""
    steps = sorted((run / "checkpoints").glob("step-*"))
    if not wanted or len(steps) < 2:
        return False
    weights = steps[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    return True


def _round(
    case: Case, base: Path, folder: Path, after: float, new: str, *, damage: bool
) -> tuple[str, str]:
    """Kill a command once; return what stood there, and what was wrong."""
    old = case.found(copy(base, folder))
    child = begin(case.words, folder)
    if case.training:
        _wait_for_steps(folder)
    time.sleep(after)
    child.kill()
    found = case.found(folder)
    stood = "the new" if found == new else "the old" if found == old else "unfinished"
    if stood == "unfinished" and not case.unfinished:
        return stood, "neither the old nor the new stands"
    hidden = bool(leftovers(folder))
    cut = _cut_short(folder / "runs" / "new", wanted=damage and case.training and found != new)
    following = case.again if case.again and (folder / "runs/new/config.yaml").exists() else None
    then = alone(following or case.words, folder)
    if then.code and not (refused_in_words(then) and case.found(folder) == new):
        return stood, f"the next command: exit {then.code}: {then.said[-300:]}"
    if case.found(folder) != new:
        return stood, "what the next command made differs from running alone"
    if left := leftovers(folder):
        return stood, f"left behind: {left}"
    listed = alone(["runs", "list"], folder)
    if listed.code or "partial" in listed.said:
        return stood, f"runs list: {listed.said[-300:]}"
    told = f"{stood} stood{', hidden things were swept' if hidden else ''}"
    return f"{told}{', and the newest checkpoint was cut short' if cut else ''}", ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill the commands that were asked for and print what stood afterwards."""
    options = options_of(arguments, __doc__ or "", CASES, 50, "moments")
    moments, tally = random.Random(options.seed), Tally()
    with room("kills-") as place:
        made = bases(Path(place))
        for name in options.names:
            case, times, new = CASES[name], list[float](), ""
            folder = Path(place) / "round"
            for _ in range(3 if options.rounds > 1 else 1):
                copy(made[case.base], folder)
                began = time.perf_counter()
                child = alone(case.words, folder)
                assert child.code == 0, child.said
                took = time.perf_counter() - began
                times.append(_trained(folder) if case.training else took)
                new = case.found(folder)
            for number in range(options.rounds):
                after = moments.uniform(0, 1.1 * statistics.median(times))
                try:
                    stood, problem = _round(
                        case, made[case.base], folder, after, new, damage=number % 2 == 1
                    )
                except AssertionError as error:
                    stood, problem = "", str(error) or "an assertion failed"
                tally.add(f"{name}, moment {number} ({after:.3f} s)", stood, problem)
            tally.close(f"{name} ({statistics.median(times):.2f} s)")
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
