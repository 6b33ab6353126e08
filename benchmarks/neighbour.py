"""What a busy neighbour costs: training and decoding beside none, one and two busy processes.

    python benchmarks/neighbour.py [--rounds 5] [--seconds 4] [--work train,decode]
    python benchmarks/neighbour.py --policies default,GOMP_SPINCOUNT=1000,OMP_WAIT_POLICY=passive

Each policy is a process of its own with its own environment, kept for the whole run: `adaptive` is
`COTERIE_THREADS=adaptive`, `fixed` the same without it, `threads=N` that many threads, and
`NAME=VALUE` a variable of the environment under `fixed`. In every round each policy works for some
seconds beside each number of neighbours, in turns; a neighbour is a process that counts. Training
takes steps of the preset `quickstart`, decoding writes one text greedily with its fresh model.

Printed are medians of tokens per second over the rounds, half the distance of the quartiles, and
the median of the ratios to the quiet rate of `fixed` in the same round. What other processes used
of the machine meanwhile is measured too (/proc/stat): rounds in which they used more than
--foreign cores are left out and counted. With --nice -15 (for root) worker and neighbours go before
all else on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

BUSY = "while True: pass"
NEIGHBOURS = (0, 1, 2)
TICK = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Return the seconds that all cores have worked since the machine started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, soft, *_ = map(int, fields)
    return (user + nice + system + irq + soft) / TICK


def training() -> Callable[[], int]:
    """Return what takes one step of the preset `quickstart` and returns its tokens."""
    from coterie.foundation.layers import load_settings
    from coterie.foundation.runs import RunDirectory
    from coterie.generate.threads import shared_cores
    from coterie.presets import preset_layers
    from coterie.train.session import open_session
    from coterie.train.settings import RunSettings

    settings = load_settings(RunSettings, preset_layers("quickstart"), "").settings
    folder = Path(tempfile.mkdtemp())
    session = open_session(settings, RunDirectory(folder / "run"))
    batches = session.loader().iterate(0)
    count = itertools.count()

    def step() -> int:
        shared_cores().look()  # as the training loop does
        session.stepper(next(count), next(batches))
        return session.tokens_per_step

    return step


def decoding() -> Callable[[], int]:
    """Return what writes one token after another and returns one."""
    from coterie.foundation.layers import load_settings
    from coterie.generate import Engine, SamplingSettings
    from coterie.presets import preset_layers
    from coterie.tokenizer.settings import Bytes
    from coterie.train.settings import RunSettings

    settings = load_settings(RunSettings, preset_layers("quickstart"), "").settings
    tokenizer = Bytes().build([])
    model = settings.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    engine = Engine(model.build().eval(), tokenizer)
    sampling = SamplingSettings(temperature=0, max_tokens=200)

    def pieces() -> Iterator[int]:
        while True:
            yield from (1 for _ in engine.stream("ROMEO:", sampling))

    return pieces().__next__


def worker(work: str, policy: str) -> None:
    """Work for as many seconds as each line of standard input says, and tell the rate."""
    import torch

    if policy.startswith("threads="):
        torch.set_num_threads(int(policy.partition("=")[2]))
    step = training() if work == "train" else decoding()
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        step()  # what it costs to wake up is nobody's
        began, own, busy, tokens = time.perf_counter(), time.process_time(), busy_seconds(), 0
        while time.perf_counter() - began < float(line):
            tokens += step()
        seconds = time.perf_counter() - began
        own = time.process_time() - own
        told = {"rate": tokens / seconds, "others": (busy_seconds() - busy - own) / seconds,
                "threads": torch.get_num_threads(), "own": own / seconds}  # fmt: skip
        print(json.dumps(told), flush=True)


def start(work: str, policy: str, nice: int) -> subprocess.Popen[str]:
    """Return a worker that is ready."""
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)
    name, _, value = policy.partition("=")
    if name.isupper():
        environment[name] = value
    environment["COTERIE_THREADS"] = policy if policy == "adaptive" else ""
    command = [sys.executable, __file__, "--worker", work, "--policies", policy]
    process = subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: os.nice(nice),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ask(process: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    """Let a worker work and return what it tells."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(
    work: str, options: argparse.Namespace
) -> tuple[dict[tuple[str, int], list[dict[str, float]]], int]:
    """Return what each policy reached beside each number of neighbours, and the rounds left out."""
    policies = options.policies.split(",")
    workers = {policy: start(work, policy, options.nice) for policy in policies}
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    left_out = 0
    try:
        for _ in range(options.rounds):
            for count in NEIGHBOURS:
                busy = [
                    subprocess.Popen(
                        [sys.executable, "-c", BUSY], preexec_fn=lambda: os.nice(options.nice)
                    )
                    for _ in range(count)
                ]
                try:
                    time.sleep(0.3)
                    for policy, process in workers.items():
                        told = ask(process, options.seconds)
                        if told["others"] - min(count, told["others"]) > options.foreign:
                            left_out += 1
                            told["noisy"] = 1
                        found[policy, count].append(told)
                finally:
                    for each in busy:
                        each.kill()
                        each.wait()
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    return found, left_out


def spread(values: list[float]) -> float:
    """Return half the distance of the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def show(work: str, found: dict[tuple[str, int], list[dict[str, float]]], left_out: int) -> None:
    """Print the table of one kind of work."""
    quiet = [each["rate"] for each in found[next(iter(found))[0], 0]]
    print(f"\n{work}: tokens/s; {left_out} stretches were noisy and are left out")
    print(f"{'policy':34}" + "".join(f"{f'{count} busy':>26}" for count in NEIGHBOURS))
    for policy in dict.fromkeys(policy for policy, _ in found):
        line = f"{policy:34}"
        for count in NEIGHBOURS:
            told = found[policy, count]
            pairs = [(each, base) for each, base in zip(told, quiet, strict=True)
                     if "noisy" not in each]  # fmt: skip
            if not pairs:
                line += f"{'–':>26}"
                continue
            rates = [each["rate"] for each, _ in pairs]
            ratio = statistics.median(each["rate"] / base for each, base in pairs)
            line += f"{statistics.median(rates):12,.0f} ± {spread(rates):5,.0f} {ratio:5.2f}"
        print(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policies", default="fixed,adaptive,OMP_WAIT_POLICY=passive,threads=1")
    parser.add_argument("--work", default="train,decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--foreign", type=float, default=0.3)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.policies)
        return
    print(f"{os.cpu_count()} cores, {options.rounds} rounds of {options.seconds:g} s")
    for work in options.work.split(","):
        show(work, *measure(work, options))


if __name__ == "__main__":
    main()
