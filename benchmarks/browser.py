"""How quickly a page of many tokens opens, scrolls and replays, in the system's chromium.

Run: python benchmarks/browser.py RECORD [--tokens 10000] [--rounds 3] [--served]

A record (`coterie visualise RUN "…" --record RECORD`) is repeated until it has so many tokens and
exported to one file, or served (the file is read anew for each round). Opened: from the navigation
to the drawn text and its panels. Frames are those between two animation frames while the ribbon
scrolls from its beginning to its end, and while a replay draws each token's way; a screen without
load shows 60 a second at most.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from coterie.foundation.traces import Trace, TraceWriter, read_trace
from coterie.visualise.web.export import write_export
from coterie.visualise.web.pack import packed
from coterie.visualise.web.runs import Board
from coterie.visualise.web.server import serve
from coterie.visualise.web.studio import Studio

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


def served(file: Path) -> tuple[str, float]:
    """Read a record and serve it; return the page's address and the milliseconds of reading."""
    begin, studio, told = time.perf_counter(), Studio(), queue.Queue()
    studio.show(read_trace(file), "a text")
    spent = 1000 * (time.perf_counter() - begin)
    given = {"host": "127.0.0.1", "port": 0, "tell": told.put}
    threading.Thread(target=serve, args=(studio, Board(list)), kwargs=given, daemon=True).start()
    return told.get(), spent


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
    parser.add_argument("--served", action="store_true")
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        parser.error("there is no chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        trace = repeated(read_trace(asked.record), asked.tokens)
        file = Path(folder, "page")
        if asked.served:
            with TraceWriter(file, trace.header) as writer:
                for start in range(0, asked.tokens, 16):
                    part = slice(start, start + 16)
                    writer.add(trace.records[part], trace.texts[part], trace.words)
        else:
            file = file.with_suffix(".html")
            write_export(file, [packed(trace)])
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        rows = []
        for _ in range(asked.rounds + 1):  # the first warms caches of files up
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            address, spent = served(file) if asked.served else (file.as_uri(), 0.0)
            rows.append((spent, *measure(page, address)))
            page.close()
        size = file.stat().st_size / asked.tokens
        print(
            f"{asked.tokens:,} tokens, {size:.0f} bytes a token in the file, {asked.rounds} rounds"
        )
        names = ("file read, ms", "opened, ms", "scrolling, frames/s", "replay, frames/s")
        for name, values in zip(names, zip(*rows[1:], strict=True), strict=True):
            print(
                f"{name:22}{statistics.median(values):8.0f}  ({min(values):.0f}–{max(values):.0f})"
            )


if __name__ == "__main__":
    main()
