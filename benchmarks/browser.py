"""How quickly a page of many tokens opens, scrolls and replays, in the system's chromium.

Run: python benchmarks/browser.py RECORD [--tokens 10000] [--rounds 3]

A record (`coterie visualise RUN "…" --record RECORD`) is repeated until it has so many tokens and
exported to one file. Opened: from the navigation to the drawn text and its panels. Frames are those
between two animation frames while the ribbon scrolls from its beginning to its end, and while a
replay draws each token's way; a screen without load shows 60 a second at most.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from coterie.foundation.traces import Trace, read_trace
from coterie.visualise.web.export import write_export
from coterie.visualise.web.pack import packed

FRAMES = """async ([act, seconds]) => {
  const node = document.querySelector(".ribbon"), times = [], begin = performance.now();
  if (act === "replay") { coterie.go(50); coterie.play(); }
  await new Promise(done => {
    const step = now => {
      times.push(now);
      const share = Math.min(1, (now - begin) / 1000 / seconds);
      if (act === "scroll") node.scrollTop = (node.scrollHeight - node.clientHeight) * share;
      share < 1 ? requestAnimationFrame(step) : done();
    };
    requestAnimationFrame(step);
  });
  if (act === "replay") coterie.play();
  return 1000 * (times.length - 1) / (times.at(-1) - times[0]);
}"""
MARK = "performance.getEntriesByName('text shown')[0]?.startTime"


def repeated(trace: Trace, tokens: int) -> Trace:
    """Return a trace of so many tokens, the same over and over."""
    again = -(-tokens // (len(trace.texts) - 1))
    records = np.tile(trace.records[:-1], again)[:tokens].copy()
    records["position"] = np.arange(tokens)
    return replace(trace, records=records, texts=(trace.texts[:-1] * again)[:tokens])


def measure(page: Page, address: str) -> tuple[float, float, float]:
    page.goto(address)
    while (opened := page.evaluate(MARK)) is None:
        page.wait_for_timeout(20)
    return opened, *(page.evaluate(FRAMES, [act, 4]) for act in ("scroll", "replay"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        parser.error("there is no chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder, "page.html")
        write_export(file, [packed(repeated(read_trace(asked.record), asked.tokens))])
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        rows = []
        for _ in range(asked.rounds + 1):  # the first warms caches of files up
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            rows.append(measure(page, file.as_uri()))
            page.close()
        size = file.stat().st_size / asked.tokens
        print(
            f"{asked.tokens:,} tokens, {size:.0f} bytes a token in the page, {asked.rounds} rounds"
        )
        names = ("opened, ms", "scrolling, frames/s", "replay, frames/s")
        for name, values in zip(names, zip(*rows[1:], strict=True), strict=True):
            print(
                f"{name:22}{statistics.median(values):8.0f}  ({min(values):.0f}–{max(values):.0f})"
            )


if __name__ == "__main__":
    main()
