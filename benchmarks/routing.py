"""Routing: is the load even, do easy tokens use fewer experts, how many experts are in use.

    python benchmarks/routing.py balance     [--preset s15era --scale tiny] [key=value …]
    python benchmarks/routing.py dynamic     [key=value …]
    python benchmarks/routing.py utilisation [--preset yinghub --scale tiny --seeds 3] [key=value …]
    python benchmarks/routing.py kernels     [--rounds 20]

`balance` trains with a selection bias and no auxiliary loss, and prints max/mean − 1 of each
layer's load over windows of 100 steps in the last half of training, and how many pairs were
dropped.
`dynamic` trains dynamic top-k with its entropy regulariser and prints how many experts the tokens
of the validation text use, by what they are and by how hard the model itself finds them.
`utilisation` trains two routers on the same unequal experts, data and seeds (the preset's noisy
dynamic top-2 with its balance, and plain top-2 without any) and compares exp(entropy of load) / E
on the validation text, mean over layers. `kernels` times the expert kernels on this machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.batch import IGNORE
from coterie.data import evaluation_batches
from coterie.evaluate.routing import LoadCounter, RoutingHealth, mean_utilisation
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.foundation.runs import RunDirectory
from coterie.model.context import ForwardContext
from coterie.model.experts import MixtureOfExperts
from coterie.presets import preset_layers
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings
from coterie.train.step import StepResult

WINDOW = 100
VALIDATION_TOKENS = 60_000
TAGS = ["<PLAY>", "</PLAY>", "<POEM>", "</POEM>", "<ACT>", "</ACT>", "<SCENE>", "</SCENE>",
        "<PART>", "</PART>", "<SPEAKER>", "</SPEAKER>", "<STAGE>", "</STAGE>"]  # fmt: skip

CHARACTERS = {
    "description": "A small mixture with dynamic top-k, character by character",
    "seed": 1337,
    "tokenizer": {"kind": "characters", "special_tokens": TAGS},
    "data": {"source": "shakespeare", "valid_fraction": 0.05, "split": "documents"},
    "model": {
        "layers": 3, "width": 96, "context": 96,
        "attention": {"kind": "grouped", "heads": 3},
        "feedforward": {
            "kind": "moe", "experts": [{"count": 8, "mlp": {"kind": "mlp", "width": 96}}],
            "experts_per_token": 4,
            "router": {"select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.01}},
            "balance": {"kind": "auxiliary", "coefficient": 0.01, "scope": "global"},
        },
    },
    "train": {
        "steps": 1200, "batch_size": 16,
        "optimizer": {"kind": "adamw", "learning_rate": 2e-3},
    },
}  # fmt: skip

PLAIN = ["model.feedforward.router={select: {kind: top_k}, noise: {kind: none}}",
         "model.feedforward.balance={kind: none}",
         "model.feedforward.capacity_factor=null"]  # fmt: skip


def layers_of(arguments: argparse.Namespace) -> list[Layer]:
    """Return the layers of settings that the command line asks for."""
    if arguments.preset is None:
        return [Layer("characters", CHARACTERS)]
    return preset_layers(arguments.preset, arguments.scale)


def train(
    layers: list[Layer], words: list[str], folder: Path, name: str,
    watch: Callable[[int, StepResult], None] = lambda step, result: None,
) -> Session:  # fmt: skip
    """Train and return the session, its decoder in evaluation mode."""
    settings = load_settings(RunSettings, [*layers, overrides_layer(words)]).settings
    session = open_session(settings, RunDirectory.create(folder, name))
    batches = session.loader().iterate(0)
    begin = time.perf_counter()
    for step in range(settings.train.steps):
        watch(step, session.stepper(step, next(batches)))
    seconds = time.perf_counter() - begin
    print(f"  {name}: {settings.train.steps} steps in {seconds:.0f} s", flush=True)
    session.decoder.eval()
    return session


def read(session: Session) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Yield tokens, targets and output (logits) over some of the validation text."""
    context, tokens = session.settings.model.context, session.store.tokens("valid")
    done = 0
    with torch.no_grad():
        for batch in evaluation_batches(tokens, context, 32):
            valid = batch.targets != IGNORE
            yield (
                batch.tokens,
                batch.targets,
                session.decoder(batch.tokens, context=ForwardContext(valid=valid)),
            )
            done += int(valid.sum())
            if done >= VALIDATION_TOKENS:
                return


def health_of(session: Session) -> tuple[tuple[RoutingHealth, ...], float]:
    """Return the routing's health over the validation text, and the loss in nats per token."""
    counter, loss, count = LoadCounter(), 0.0, 0
    for _, targets, output in read(session):
        counter.add(output.router_stats)
        loss += float(F.cross_entropy(output.logits.flatten(0, 1), targets.flatten(),
                                      ignore_index=IGNORE, reduction="sum"))  # fmt: skip
        count += int((targets != IGNORE).sum())
    return counter.health(), loss / count


def balance(arguments: argparse.Namespace, folder: Path) -> None:
    """Print how even the load is over the last half of training."""
    arguments.preset = arguments.preset or "s15era"
    loads: list[dict[int, Tensor]] = []
    dropped, auxiliary, losses = 0, 0.0, []

    def watch(step: int, result: StepResult) -> None:
        nonlocal dropped, auxiliary
        loads.append(result.metrics.loads)
        dropped += sum(int(each) for each in result.metrics.dropped.values())
        auxiliary += sum(float(each) for each in result.metrics.auxiliary.values())
        losses.append(float(result.metrics.loss))

    train(layers_of(arguments), arguments.words, folder, "balance", watch)
    half = len(loads) // 2
    window = min(WINDOW, max(len(loads) - half, 1))
    starts = range(half, len(loads) - window + 1, window)
    print(f"\nmax/mean − 1 of the load, windows of {window} steps, last half of {len(loads)} steps")
    print("steps        " + "".join(f"layer {layer:<6}" for layer in sorted(loads[0])))
    worst = 0.0
    for start in starts:
        row = []
        for layer in sorted(loads[0]):
            load = torch.stack([each[layer] for each in loads[start : start + window]]).sum(0)
            row.append(float(load.max() / load.double().mean()) - 1)
        worst = max(worst, *row)
        print(f"{start:>5}–{start + window:<6} " + "".join(f"{each:<12.3f}" for each in row))
    print(f"worst {worst:.3f} (wanted ≤ 0.1); auxiliary losses of all steps {auxiliary:g}; "
          f"dropped pairs {dropped}; loss {losses[0]:.3f} → {losses[-1]:.3f}")  # fmt: skip


def dynamic(arguments: argparse.Namespace, folder: Path) -> None:
    """Print how many experts tokens use, by class and by difficulty."""
    session = train(layers_of(arguments), arguments.words, folder, "dynamic")
    used, hard, kinds = [], [], []
    for tokens, targets, output in read(session):
        valid = (targets != IGNORE).flatten()
        experts = session.settings.model.feedforward.num_experts  # type: ignore[union-attr]
        counts = torch.stack([(r.indices < experts).sum(-1) for r in output.router_stats])
        used.append(counts.double().mean(0)[valid])
        loss = F.cross_entropy(output.logits.flatten(0, 1), targets.flatten(), reduction="none",
                               ignore_index=IGNORE)  # fmt: skip
        hard.append(loss[valid])
        kinds.append(classes(session, tokens).flatten()[valid])
    experts, loss, kind = torch.cat(used), torch.cat(hard), torch.cat(kinds)
    print(f"\n{'tokens':<36}{'share':>8}{'experts':>10}{'loss':>8}")
    for number, name in enumerate(CLASSES):
        report(name, kind == number, experts, loss)
    edges = loss.quantile(torch.tensor([0.25, 0.5, 0.75]))
    quarter = torch.bucketize(loss, edges)
    for number, name in enumerate(("easiest quarter (own loss)", "second", "third", "hardest")):
        report(name, quarter == number, experts, loss)
    report("all", torch.ones_like(kind, dtype=torch.bool), experts, loss)
    together = torch.corrcoef(torch.stack((experts, loss.double())))[0, 1]
    print(f"correlation of experts used with loss {float(together):+.3f}")


def report(name: str, chosen: Tensor, experts: Tensor, loss: Tensor) -> None:
    """Print one row of a table."""
    if chosen.any():
        share = float(chosen.double().mean())
        print(f"{name:<36}{share:>8.1%}{float(experts[chosen].mean()):>10.3f}"
              f"{float(loss[chosen].mean()):>8.3f}")  # fmt: skip


CLASSES = ("first letter of a word", "second letter", "later letters", "space or line end",
           "punctuation", "tags")  # fmt: skip


def classes(session: Session, tokens: Tensor) -> Tensor:
    """Return the class of each token read, [B, T]; what is computed there foretells the next."""
    texts = {n: session.tokenizer.decode([n]) for n in tokens.unique().tolist()}
    rows = []
    for row in tokens.tolist():
        inside, found = 0, []
        for token in row:
            text = texts[token]
            inside = inside + 1 if text.isalpha() else 0
            if inside:
                found.append(min(inside, 3) - 1)
            elif text.startswith("<") and len(text) > 1:
                found.append(5)
            else:
                found.append(3 if text.isspace() else 4)
        rows.append(found)
    return torch.tensor(rows)


def utilisation(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the utilisation of the preset's router and of plain top-k, over seeds."""
    arguments.preset = arguments.preset or "yinghub"
    rows: dict[str, list[tuple[float, float, float, float]]] = {"preset": [], "plain top-k": []}
    for seed in range(arguments.seeds):
        for name, words in (("preset", []), ("plain top-k", PLAIN)):
            asked = [f"seed={1337 + seed}", *words, *arguments.words]
            run = f"{name.replace(' ', '-')}-{seed}"
            session = train(layers_of(arguments), asked, folder, run)
            health, loss = health_of(session)
            per_token = statistics.mean(each.experts_per_token for each in health)
            worst = max(each.imbalance for each in health)
            rows[name].append((mean_utilisation(health), worst, per_token, loss))
    print(f"\n{'router':<14}{'utilisation':>26}{'worst max/mean−1':>18}{'experts/token':>15}"
          f"{'loss':>8}")  # fmt: skip
    for name, values in rows.items():
        used, worst, per_token, loss = (statistics.mean(column) for column in zip(*values))  # noqa: B905
        spread = f"{min(v[0] for v in values):.3f}–{max(v[0] for v in values):.3f}"
        print(f"{name:<14}{used:>12.3f} ({spread}){worst:>18.3f}{per_token:>15.2f}{loss:>8.3f}")
    gains = [a[0] / b[0] - 1 for a, b in zip(rows["preset"], rows["plain top-k"], strict=True)]
    print(f"gain by seed: {', '.join(f'{gain:+.1%}' for gain in gains)}; "
          f"mean {statistics.mean(gains):+.1%} (claimed +15 %)")  # fmt: skip


def kernels(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the time of each expert kernel for a few shapes."""
    names = ("loop", "grouped", "padded", "gather", "auto", "measured")
    print("ms per layer; f forward without gradients, fb forward and backward")
    print(f"{'experts':<9}{'width':<7}{'tokens':<8}{'':<4}" + "".join(f"{n:>10}" for n in names))
    for experts, width in ((8, 96), (8, 256), (7, 512), (64, 128)):
        for tokens in (1, 4, 8, 32, 512, 2048):
            for backward in (False, True):
                if backward and tokens < 32:
                    continue
                times = [timed(name, experts, width, tokens, backward, arguments.rounds)
                         for name in names]  # fmt: skip
                print(f"{experts:<9}{width:<7}{tokens:<8}{'fb' if backward else 'f':<4}"
                      + "".join(f"{1e3 * each:>10.3f}" for each in times), flush=True)  # fmt: skip


def timed(
    name: str, experts: int, width: int, tokens: int, backward: bool, rounds: int
) -> float:  # fmt: skip
    """Return the median seconds of one layer with two experts per token."""
    mlp = {"kind": "gated", "width": width}
    layer = MixtureOfExperts.model_validate({
        "experts": [{"mlp": mlp, "count": experts}], "experts_per_token": 2, "kernel": name,
    }).build(width)  # fmt: skip
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, seconds = torch.randn(1, tokens, width, requires_grad=backward), []
    for _ in range(rounds + 2):
        begin = time.perf_counter()
        with torch.set_grad_enabled(backward):
            out = layer(x)[0]
            if backward:
                out.sum().backward()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = {"balance": balance, "dynamic": dynamic, "utilisation": utilisation,
             "kernels": kernels}  # fmt: skip
    parser.add_argument("what", choices=verbs)
    parser.add_argument("words", nargs="*", help="key=value changes of the settings")
    parser.add_argument("--preset", help="train this preset instead")
    parser.add_argument("--scale", default="tiny", help="at this scale")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_intermixed_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        verbs[arguments.what](arguments, Path(name))


if __name__ == "__main__":
    main()
