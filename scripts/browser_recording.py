"""Make docs/images/watching.webp: twenty seconds of the page while a model writes.

    python scripts/browser_recording.py RUN [PROMPT]

Frames are taken in the system's chromium as fast as it gives them, and shown for as long as they
stood: a text is written and coloured by expert, then by surprise; its experts; and the text again
without one of them, beside it.
"""

from __future__ import annotations

import argparse
import io
import shutil
import time
from itertools import pairwise

from browser_pictures import DONE, IMAGES, PROMPT, opened, served, until
from PIL import Image
from playwright.sync_api import Page, sync_playwright

_SIZE = (960, 600)
_SECONDS = 20


class Film:
    """Frames with the seconds at which they were taken."""

    def __init__(self, page: Page) -> None:
        self.page, self.begun = page, time.monotonic()
        self.frames: list[tuple[float, bytes]] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def roll(self, seconds: float, until: str = "false") -> None:
        """Take frames for so long, or until a condition holds."""
        end = self.seconds + seconds
        while (now := self.seconds) < end and not self.page.evaluate(until):
            self.frames.append((now, self.page.screenshot()))

    def press(self, key: str, seconds: float, until: str = "false") -> None:
        self.page.evaluate("document.activeElement.blur()")
        self.page.keyboard.press(key)
        self.roll(seconds, until)

    def save(self) -> None:
        times = [*(at for at, _ in self.frames), self.seconds]
        file = IMAGES / "watching.webp"
        first, *others = (Image.open(io.BytesIO(each)).convert("RGB") for _, each in self.frames)
        lasting = [round(1000 * (b - a)) for a, b in pairwise(times)]
        lasting[-1] += 1500  # the end may be looked at
        first.save(file, save_all=True, append_images=others, duration=lasting, loop=0,
                   quality=70, method=4, kmin=8, kmax=16)  # fmt: skip
        size = file.stat().st_size
        print(f"{file}: {len(self.frames)} frames in {times[-1]:.1f} s, {size:,} bytes")


def play(page: Page, prompt: str) -> Film:
    """Write a text and look at it, and at what a hand does to it."""
    until(page, DONE.format(1))
    page.evaluate("document.querySelector('details.writing').open = true")
    page.fill("#ask-prompt", prompt)
    page.fill("#ask-max_tokens", "360")
    page.click("button.main")
    page.evaluate("document.querySelector('details.writing').open = false")
    until(page, "coterie.current === 2 && coterie.asked === false")
    film = Film(page)
    film.roll(7, until=DONE.format(2))
    film.press("c", 1.3)
    page.keyboard.press("c")
    film.press("c", 0)
    page.click("#tab-experts")
    page.mouse.move(5, 590)  # or it would hover there
    film.roll(1.2)
    page.evaluate("scrollTo({top: 350, behavior: 'smooth'})")
    film.roll(2)
    page.evaluate("scrollTo(0, 0)")
    page.evaluate("coterie.set({layer: coterie.trace.routed.at(-1), expert: 2})")
    film.press("m", 9, until="coterie.effects.found")
    page.evaluate(
        "scrollTo({top: document.querySelector('#effects').offsetTop - 80, behavior: 'smooth'})"
    )
    film.roll(max(_SECONDS - film.seconds, 2.5))
    return film


def main() -> None:
    """Serve a text and film what is done with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    asked = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        parser.error("there is no chromium on this machine")
    with served(asked.run, "A") as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = opened(browser, address, _SIZE, "light", "no-preference")
        play(page, asked.prompt).save()
        browser.close()


if __name__ == "__main__":
    main()
