"""Make the pictures of the views in the terminal, docs/images/terminal-*.svg, from a trained run.

    python scripts/terminal_pictures.py RUN [PROMPT]

They are what textual draws for a terminal of 160 × 50 and of 80 × 24 characters: a text, written
anew, and what the run recorded of its training (with `train.watch_every`, also of its routing).
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.api.model import load
from coterie.foundation.locks import owner_of
from coterie.foundation.runs import RunDirectory, find_run
from coterie.generate.watched import WatchedText
from coterie.visualise.live.app import ViewApp
from coterie.visualise.live.source import LiveText
from coterie.visualise.live.training import TrainingApp
from coterie.visualise.live.writing import WritingApp

_IMAGES = Path(__file__).parents[1] / "docs" / "images"
_FETCHED = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # from elsewhere: a page fetches nothing


async def take(live: LiveText, command: str) -> None:
    """Take both pictures once the text is written."""
    app = WritingApp(live)
    async with app.run_test(size=(160, 50)) as pilot:
        while live.writing:
            await pilot.pause(0.1)
        await pilot.press("left", "left")
        await pilot.pause(0.5)
        save(app, "terminal-wide", command)
        await pilot.resize_terminal(80, 24)
        await pilot.press("2")
        await pilot.pause(0.5)
        save(app, "terminal-small", command)


async def take_training(run: RunDirectory, command: str) -> None:
    """Take pictures of a run's record, at both sizes."""
    app = TrainingApp(run, lambda: owner_of(run.path) is not None)
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.press("down", "right_square_bracket", "right_square_bracket")
        await pilot.pause(0.5)
        save(app, "terminal-training", command)
        await pilot.resize_terminal(80, 24)
        await pilot.press("2")
        await pilot.pause(0.5)
        save(app, "terminal-training-small", command)


def save(app: ViewApp, name: str, command: str) -> None:
    picture = _FETCHED.sub("", app.export_screenshot(title=command))
    fonts = "DejaVu Sans Mono, Menlo, Consolas"
    (_IMAGES / f"{name}.svg").write_text(picture.replace("Fira Code", fonts))


def main() -> None:
    """Write a text and take pictures of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("prompt", nargs="?", default="Shall I compare thee to a summer's day?\n")
    asked = parser.parse_args()
    model = load(asked.run)
    sampling = model.sampling()

    def write(
        prompt: Sequence[int], written: Sequence[int], masked: Any, forced: Any, steered_from: int
    ) -> WatchedText:
        return model.watch_with(
            prompt, sampling, masked, forced, written=written, steered_from=steered_from
        )

    live = LiveText(model.watch_with(asked.prompt, sampling), write=write)
    asyncio.run(take(live, f'coterie visualise {asked.run} "{asked.prompt.strip()}"'))
    asyncio.run(take_training(find_run(asked.run), f"coterie watch {asked.run}"))


if __name__ == "__main__":
    main()
