"""A real pretrained model tuned by adapters and given back: SmolLM2-135M-Instruct, by commands.

    python benchmarks/tune_smollm2.py [--file MODEL.gguf] [--rows 200] [--epochs 1] [--rank 8]

The file (see smollm2.py) is imported; adapters of --rank are tuned on --rows instructions made from
the shipped plays (see instructions.py), by the model's own chat template; the tuned run is exported
whole for transformers, and its adapters for peft. Told are wall seconds, seconds of the processor
and the largest memory of each command, nats per token of held-out answers before and after, and
whether transformers, asked through its chat template, writes the same tokens as we do (greedy),
from the whole export and, where peft is installed, from the base's export with the adapter on it.
Weights of the file are of 4 bits: all that follows begins with them as they were rounded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from instructions import rows_of
from smollm2 import fetch

from coterie.align.encoding import encode, parts_of
from coterie.checkpoint import load_model
from coterie.evaluate.scoring import sequence_logprobs
from coterie.foundation.runs import cache_root, runs_root
from coterie.generate import Engine, Request, SamplingSettings
from coterie.tokenizer.chat import template_of

NAME = "smollm2-tuned"


def command(*words: str) -> None:
    """Run a command of coterie and tell what it took."""
    print(f"$ coterie {' '.join(words)}", flush=True)
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "coterie", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, "it failed"
    print(f"  {time.perf_counter() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of the "
          f"processor, at most {used.ru_maxrss / 2**20:.2f} GiB", flush=True)  # fmt: skip


def conversation(row: dict) -> list[dict]:
    """Return a row as messages."""
    return [{"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]}]  # fmt: skip


def held_out_loss(name: str, held: list[dict]) -> float:
    """Return the nats per token of what the assistant says, the token that ends it included."""
    loaded = load_model(name)
    template = template_of(loaded.settings, loaded.tokenizer)
    total, count = 0.0, 0
    for row in held:
        text = encode(loaded.tokenizer, parts_of(template, conversation(row)))
        whole = [*text.tokens.tolist(), int(text.targets[-1])]
        logs = sequence_logprobs(loaded.decoder, [whole])[0].numpy()[text.targets >= 0]
        total, count = total - float(logs.sum()), count + len(logs)
    return total / count


def ours(name: str, asked: list[str]) -> list[list[int]]:
    """Return the tokens of greedy answers."""
    loaded = load_model(name)
    template = template_of(loaded.settings, loaded.tokenizer)
    engine = Engine(loaded.decoder, loaded.tokenizer)
    sampling = SamplingSettings(temperature=0.0, max_tokens=24)
    prompts = [template.render([{"role": "user", "content": each}], ask=True) for each in asked]
    made = engine.generate_many([Request(engine.encode_prompt(p), sampling, 0) for p in prompts])
    return [[t for t in each.tokens if t not in loaded.tokenizer.ends] for each in made]


def theirs(folder: Path, asked: list[str], adapter: Path | None = None) -> list[list[int]]:
    """Return the tokens that transformers answers with, and the ending one left out."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).eval()
    found = []
    for each in asked:
        said = [{"role": "user", "content": each}]
        prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True,
                                               return_tensors="pt", return_dict=True)  # fmt: skip
        with torch.no_grad():
            made = model.generate(**prompt, do_sample=False, max_new_tokens=24)
        tokens = made[0, prompt["input_ids"].shape[1] :].tolist()
        found.append([token for token in tokens if token != tokenizer.eos_token_id])
        print(f"  {each!r} → {tokenizer.decode(found[-1])!r}")
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="the model's file, if it is there already")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--held", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    given = parser.parse_args()
    train, held, _ = rows_of(8, 0)
    held = held[: given.held]
    work = runs_root() / "smollm2-files"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rows = work / "rows.jsonl"
    rows.write_text("".join(json.dumps({"messages": conversation(row)}) + "\n"
                            for row in train[: given.rows]))  # fmt: skip
    file = given.file or fetch(cache_root() / "smollm2")
    command("model", "import", str(file), "--name", "smollm2")
    command("align", "sft", "smollm2", str(rows), "--lora", str(given.rank), "--name", NAME,
            "align.max_length=256", f"train.epochs={given.epochs}", "train.batch_size=4",
            f"train.optimizer.learning_rate={given.rate}", "align.valid_fraction=0",
            "train.sample_every=0", "train.device=cpu", "train.precision=float32")  # fmt: skip
    command("model", "export", NAME, "--out", str(work / "whole"))
    command("align", "adapters", NAME, "--peft", "--out", str(work / "adapter"))
    before, after = held_out_loss("smollm2", held), held_out_loss(NAME, held)
    print(f"nats per token of {len(held)} held-out answers: {before:.3f} → {after:.3f}", flush=True)
    asked = [row["prompt"] for row in held[:4]]
    own, other = ours(NAME, asked), theirs(work / "whole", asked)
    print(f"tokens through transformers are {'ours' if own == other else 'NOT OURS'}")
    try:
        import peft  # noqa: F401
    except ImportError:
        print("peft is not installed: the adapter was not read by it")
        sys.exit(own != other)
    command("model", "export", "smollm2", "--out", str(work / "base"))
    through = theirs(work / "base", asked, work / "adapter")
    print(f"tokens through peft are {'ours' if own == through else 'NOT OURS'}")
    sys.exit(not own == other == through)


if __name__ == "__main__":
    main()
