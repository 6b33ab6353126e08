"""What the view in the terminal costs a text while it is written, at two sizes.

    python benchmarks/watching.py RUN [PROMPT] [--rounds 5] [--settings max_tokens=200 ...]

In turns, on one model: the text unwatched by the passes it is written with by default and by torch
alone (`compute=torch`), watched by nobody, and in the view on terminals of 80 × 24 and 160 × 50
characters (pseudo-terminals that are read and thrown away). Printed are tokens a second, the median
of the rounds' ratios to `compute=torch` with the least and the greatest, and pictures a second.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from coterie.api.model import Model, load
from coterie.foundation.layers import overrides_layer
from coterie.generate.sampling import SamplingSettings
from coterie.visualise.live.apart import TextApart
from coterie.visualise.live.source import LiveText
from coterie.visualise.live.writing import WritingApp

_SIZES = ((80, 24), (160, 50))


def text_of(run: str, prompt: str, settings: list[str]) -> LiveText:
    """Return the text of a view, in the process of the model, once it was written before."""
    model = load(run)
    sampling = model.sampling(overrides_layer(settings))
    for _ in model.watch_with(prompt, sampling):
        pass
    live = LiveText(model.watch_with(prompt, sampling))
    live.pause()
    return live


class Timed(WritingApp):
    """Takes the time from the end of the prompt to the end of the text."""

    pictures = 0
    begun: tuple[float, int, int] | None = None

    def draw(self) -> None:
        self.pictures += 1
        super().draw()

    def tick(self) -> None:
        super().tick()
        count = len(self._trace.texts)
        if self.begun is None and count:
            self.live.go()
            self.begun = (time.perf_counter(), count, self.pictures)
        elif self.begun is not None and not self.live.writing:
            begun, first, pictures = self.begun
            seconds = time.perf_counter() - begun
            self.found = ((count - 1 - first) / seconds, (self.pictures - pictures) / seconds)
            self.exit()


def in_view(arguments: list[str], columns: int, rows: int) -> tuple[float, float]:
    """Return tokens and pictures a second of a view in a terminal of that size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "told"
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        process = subprocess.Popen(
            [sys.executable, __file__, "--told", str(told), *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment,
        )  # fmt: skip
        os.close(slave)
        threading.Thread(target=drain, args=(master,), daemon=True).start()
        assert process.wait() == 0
        speed, pictures = json.loads(told.read_text())
        return speed, pictures


def drain(terminal: int) -> None:
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        os.close(terminal)


def unwatched(model: Model, prompt: str, sampling: SamplingSettings) -> float:
    begun, first, count = 0.0, 0, 0
    for _ in model.stream_with(prompt, sampling):
        count += 1
        if not begun:
            begun, first = time.perf_counter(), count
    return (count - first) / (time.perf_counter() - begun)


def watched(model: Model, prompt: str, sampling: SamplingSettings) -> float:
    begun, count = 0.0, 0
    for seen in model.watch_with(prompt, sampling):
        if begun:
            count += len(seen.texts)
        else:
            begun = time.perf_counter()
    return (count - 1) / (time.perf_counter() - begun)


def measure(run: str, prompt: str, settings: list[str], rounds: int) -> None:
    """Measure and print a line for each way."""
    model = load(run)
    sampling = model.sampling(overrides_layer(settings))
    plain = sampling.model_copy(update={"compute": "torch"})
    taken: dict[str, list[float]] = {}
    pictures: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        speeds = {
            "compute=torch": unwatched(model, prompt, plain),
            "by default": unwatched(model, prompt, sampling),
            "watched by nobody": watched(model, prompt, sampling),
        }
        for columns, rows in _SIZES:
            name = f"view of {columns} × {rows}"
            speeds[name], frames = in_view([run, prompt, "--settings", *settings], columns, rows)
            pictures.setdefault(name, []).append(frames)
        for name, speed in speeds.items() if number else ():  # the first warms up
            taken.setdefault(name, []).append(speed)
    for name, speeds in taken.items():
        ratios = [a / b for a, b in zip(speeds, taken["compute=torch"], strict=True)]
        drawn = f", {statistics.median(pictures[name]):.1f} pictures/s" if name in pictures else ""
        print(
            f"{name}: {statistics.median(speeds):.0f} tokens/s, ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}){drawn}",
            flush=True,
        )


def main() -> None:
    """Measure, or be what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("prompt", nargs="?", default="Shall I compare thee to a summer's day?\n")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="*", default=["max_tokens=200"])
    parser.add_argument("--told", type=Path)
    asked = parser.parse_args()
    if asked.told is None:
        measure(asked.run, asked.prompt, asked.settings, asked.rounds)
        return
    app = Timed(TextApart(text_of, asked.run, asked.prompt, asked.settings))
    app.run()
    asked.told.write_text(json.dumps(app.found))


if __name__ == "__main__":
    main()
