"""How long training stands still for a checkpoint: written at once, and in the background.

    python benchmarks/saving.py [mymoe:tiny] [--rounds 7] [--place FOLDER]

One session saves in turns either way; two training steps follow each save in the background, and
what they lose to the thread beside them is in the second figure: the time of save and steps
together above that of such steps alone.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from coterie.api.given import resolve
from coterie.checkpoint import checkpoint_bytes
from coterie.foundation.events import Event
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.train.events import CheckpointSaved
from coterie.train.monitor.publish import Publisher
from coterie.train.saving import Saver
from coterie.train.session import open_session


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", nargs="?", default="mymoe:tiny")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--place", type=Path, help="where; a temporary folder by default")
    asked = parser.parse_args()
    name, _, scale = asked.target.partition(":")
    layer = Layer("here", {"train": {"steps": 10**6, "keep": 1}})
    settings = resolve(name, [layer], scale or None).settings
    saved: list[CheckpointSaved] = []

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            saved.append(event)

    with tempfile.TemporaryDirectory(dir=asked.place) as place, contextlib.ExitStack() as stack:
        session = open_session(settings, RunDirectory.create(Path(place), "saving"))
        batch = session.loader().batch(0)
        publish = stack.enter_context(Publisher(session.run, [hear]))
        foreground = Saver(session, publish, None)
        train = settings.train.model_copy(update={"save_in_background": True})
        session.settings = session.settings.model_copy(update={"train": train})
        background = Saver(session, publish, None)
        stack.callback(background.close)

        def steps() -> None:
            for _ in range(2):
                result = session.stepper(session.progress.step, batch)
                session.progress.advance(tokens=batch.tokens.numel(), seconds=0.0, loss=result.loss)

        taken: dict[str, list[float]] = {"steps": [], "at once": [], "background": []}
        ways: dict[str, Callable[[], None]] = {
            "steps": lambda: None, "at once": foreground.save, "background": background.save,
        }  # fmt: skip
        for number in range(asked.rounds + 1):
            for way, save in ways.items():
                begin = time.perf_counter()
                save()
                steps()
                background.wait()
                if number:
                    taken[way].append(time.perf_counter() - begin)
        size = checkpoint_bytes(Path(saved[-1].path))
        print(f"{asked.target}: a checkpoint of {size / 1e6:,.0f} MB, {asked.rounds} rounds")
        stood = [event.stood or 0.0 for event in saved[2:]]
        for way, found in (("at once", stood[0::2]), ("background", stood[1::2])):
            low, middle, high = statistics.quantiles(found, n=4)
            more = statistics.median(a - b for a, b in zip(taken[way], taken["steps"], strict=True))
            print(
                f"  {way}: stands still for {middle:.3f} s (quartiles {low:.3f}–{high:.3f}); with "
                f"two steps and all writing {more:.3f} s above the steps alone"
            )


if __name__ == "__main__":
    main()
