"""Which augmentation helps a small text: held-out nats at equal tokens, over several epochs.

    python benchmarks/augmentation.py [--seeds 3] [--steps 300] [--texts 2] [--only mask,case]

A small dense decoder (2 layers of width 64, context 128) reads the first TEXTS documents of the
shipped corpus in 1,024 BPE tokens, as many tokens with an augmentation as without; what is held out
is the last tenth. Printed: how often a token was read, and for each kind the mean and range over
seeds of the loss after the last step, and of its difference to none with the same seed. Losses are
no times: it may run beside anything. With --out FILE, what is measured is kept and taken up again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from coterie.data import evaluation_batches, read_documents
from coterie.evaluate import validate
from coterie.foundation.runs import RunDirectory
from coterie.train.session import open_session
from coterie.train.settings import RunSettings

SIGNS = ["<SPEAKER>", "</SPEAKER>", "<unk>", "<|reverse|>",
         "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]  # fmt: skip
KINDS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "token_dropout": [{"kind": "token_dropout"}],
    "mask": [{"kind": "mask"}],
    "span_mask": [{"kind": "span_mask"}],
    "replacement": [{"kind": "replacement"}],
    "bpe_dropout": [{"kind": "bpe_dropout"}],
    "case": [{"kind": "case"}],
    "pairs archaic": [{"kind": "pairs", "share": 0.3}],
    "pairs orthography": [{"kind": "pairs", "share": 0.3, "table": "orthography"}],
    "jitter": [{"kind": "jitter"}],
    "shuffle lines": [{"kind": "shuffle"}],
    "shuffle speeches": [{"kind": "shuffle", "unit": "speech"}],
    "reverse": [{"kind": "reverse"}],
    "fim": [{"kind": "fim"}],
    "mask falling": [
        {"kind": "mask", "share": {"kind": "linear", "first": 0.3, "last": 0, "end": 225}}
    ],
}


def settings_of(augment: list[dict[str, Any]], seed: int, steps: int, text: Path) -> RunSettings:
    return RunSettings.model_validate(
        {
            "seed": seed,
            "data": {"source": str(text), "split": "tail", "valid_fraction": 0.1,
                     "augment": augment},
            "tokenizer": {"kind": "bpe", "vocab_size": 1024, "special_tokens": SIGNS},
            "model": {
                "layers": 2, "width": 64, "context": 128, "position": {"kind": "rotary"},
                "norm": {"kind": "rms"}, "attention": {"kind": "grouped", "heads": 4},
                "feedforward": {"kind": "dense", "mlp": {"kind": "mlp", "width": 256}},
            },
            "train": {
                "steps": steps, "batch_size": 8, "precision": "float32", "device": "cpu",
                "optimizer": {"kind": "muon", "learning_rate": 0.02},
                "schedule": {"kind": "linear"},
            },
        }
    )  # fmt: skip


def measure(settings: RunSettings) -> tuple[float, float]:
    """Return held-out nats per token after the last step, and how often a token was read."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(settings, RunDirectory(Path(folder)))
        steps = settings.train.steps
        with session.loader() as loader:
            batches = loader.iterate()
            for step in range(steps):
                session.stepper(step, next(batches))
        valid = session.store.tokens("valid")
        found = validate(session.decoder, evaluation_batches(valid, settings.model.context, 32))
        read = steps * session.tokens_per_step / len(session.store.tokens("train"))
    return found.loss, read


def told(values: list[float], sign: str = "") -> str:
    low, high = min(values), max(values)
    return f"{statistics.mean(values):{sign}.3f} ({low:{sign}.3f} … {high:{sign}.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--texts", type=int, default=2)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out and options.out.exists() and json.loads(options.out.read_text())
    found: dict[str, float] = kept or {}
    names = ["none", *(name for name in options.only.split(",") if name != "none")]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        documents = [each.text for each in read_documents(["shakespeare"])]
        text.write_text("\n".join(documents[: options.texts]), encoding="utf-8")
        for seed in range(options.seeds):
            for name in names:
                key = f"{name} {seed}"
                if key in found:
                    continue
                loss, read = measure(settings_of(KINDS[name], seed, options.steps, text))
                found[key] = loss
                print(f"{key}: {loss:.4f} (each token read {read:.1f} times)", flush=True)
                if options.out:
                    options.out.write_text(json.dumps(found))
    print(f"\n{'':20}{'held-out nats':>26}{'against none':>28}")
    for name in names:
        losses = [found[f"{name} {seed}"] for seed in range(options.seeds)]
        gains = [loss - found[f"none {seed}"] for seed, loss in enumerate(losses)]
        print(f"{name:20}{told(losses):>26}{told(gains, '+'):>28}")


if __name__ == "__main__":
    main()
