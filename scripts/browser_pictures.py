"""Make the pictures of the views in the browser, docs/images/watching-*.webp, from trained runs.

    python scripts/browser_pictures.py RUN [PROMPT] [--only WORD]

It serves RUN as `coterie visualise RUN PROMPT --web` does, with all runs of its folder on the
board, and takes each view in the system's chromium, light and dark, and on a phone.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PROMPT = "To be, or not to be: that is the question:\n"
_SIZE, _PHONE = (1280, 860), (390, 860)
DONE = "coterie.texts.size >= {} && [...coterie.texts.values()].every(text => text.done)"


@contextmanager
def served(run: str, prompt: str) -> Iterator[str]:
    """Serve a text of a run; yield the page's address."""
    command = [sys.executable, "-m", "coterie", "visualise", run, prompt, "max_tokens=240", "--web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Open "):
                yield line.split()[1]
                break
        process.terminate()


def until(page: Page, condition: str) -> None:
    """Wait for a condition; the page's policy lets no string be made a script inside it."""
    for _ in range(3600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(f"it never came that {condition}")


def settle(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(400)  # what fades has faded


def write(page: Page, prompt: str, **fields: str) -> None:
    """Write a text from the page's form, and wait for it."""
    page.click("#tab-text")
    page.evaluate("document.querySelector('details.writing').open = true")
    page.fill("#ask-prompt", prompt)
    for name, value in fields.items():
        if name == "step":
            page.select_option("#ask-step", value)
        else:
            page.fill(f"#ask-{name}", value)
    count = page.evaluate("coterie.texts.size")
    page.click("button.main")
    until(page, DONE.format(count + 1))
    page.evaluate("document.querySelector('details.writing').open = false")


def prepare(page: Page, prompt: str) -> None:
    """Have all texts written that the views compare: a prompt, a checkpoint, a hand."""
    until(page, DONE.format(1))
    steps = page.evaluate("[...document.querySelector('#ask-step').options].map(o => o.value)")
    write(page, "A rose by any other name\n", step=steps[-1], max_tokens="240")
    write(page, prompt, step=steps[0], max_tokens="240")
    page.evaluate("coterie.open(1)")
    page.evaluate("coterie.set({layer: coterie.trace.routed.at(-1), expert: 2})")
    settle(page)
    page.keyboard.press("m")
    until(page, DONE.format(5))
    until(page, "coterie.effects.found")


def text(page: Page) -> None:
    page.click("#tab-text")
    page.evaluate("coterie.open(1)")
    page.evaluate("coterie.set({layer: coterie.trace.routed[0], expert: -1})")
    page.evaluate("coterie.go(118)")


def experts(page: Page) -> None:
    page.evaluate("coterie.set({layer: coterie.trace.routed[0], expert: 2})")
    page.click("#tab-experts")


def compared(one: int, other: int) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.click("#tab-compare")
        page.evaluate(f"coterie.compare.choose(0, {one}); coterie.compare.choose(1, {other})")
        page.evaluate("coterie.changed('trace')")

    return act


def hand(page: Page) -> None:
    compared(1, 4)(page)
    if not page.evaluate("!!coterie.effects.found"):
        layer = page.evaluate("coterie.trace.routed.at(-1)")
        page.fill("#effects input", f"{layer}:2")
        page.click("#effects button")
        until(page, "coterie.effects.found")


def lapse(page: Page) -> None:
    compared(1, 3)(page)
    if not page.evaluate("!!coterie.lapse.found"):
        page.click("#textlapse button")
        until(page, "coterie.lapse.found")
    page.locator("#textlapse input").fill("1")


def training(page: Page) -> None:
    page.click("#tab-training")
    until(page, "coterie.training.loaded.length > 0")
    for name in page.evaluate("coterie.training.listing.slice(0, 3).map(run => run.name)"):
        page.check(f"[id='follow-{name}']")
    page.wait_for_timeout(1500)
    page.select_option("#lapse select", page.evaluate("coterie.run ?? coterie.trace.header.model"))
    page.evaluate("document.querySelector('#told details').open = false")


# Name: what brings the view, and the parts that are taken.
VIEWS: dict[str, tuple[Callable[[Page], None], str]] = {
    "text": (text, "header, .reading, #flow, #candidates"),
    "token": (text, "#lens, #now, #stream, #attention"),
    "experts": (experts, "#load, #heat, #margins, #company, #card"),
    "atlas": (experts, "#atlas"),
    "prompts": (compared(1, 2), "#compare"),
    "checkpoints": (compared(1, 3), "#compare"),
    "hand": (hand, "#compare, #effects"),
    "lapse": (lapse, "#textlapse"),
    "training": (training, "#runs, #curves, #lapse, #told"),
}
ON_PHONE = {"text": text, "experts": experts, "compare": compared(1, 4), "training": training}


def taken(page: Page, panels: str) -> Image.Image:
    """Return a picture of the page, or of the part that some panels fill."""
    page.evaluate("scrollTo(0, 0)")
    settle(page)
    if not panels:
        return Image.open(io.BytesIO(page.screenshot()))
    boxes = [each.bounding_box() for each in page.locator(panels).all()]
    left, top, right, low = (
        choose(box[side] + (box[size] if size else 0) for box in boxes if box)
        for choose, side, size in ((min, "x", ""), (min, "y", ""), (max, "x", "width"),
                                   (max, "y", "height"))
    )  # fmt: skip
    clip: Any = {"x": left - 8, "y": top - 8, "width": right - left + 16, "height": low - top + 16}
    page.set_viewport_size({"width": _SIZE[0], "height": int(low) + 40})
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip)))
    page.set_viewport_size({"width": _SIZE[0], "height": _SIZE[1]})
    return picture


def save(picture: Image.Image, name: str) -> None:
    file = IMAGES / f"watching-{name}.webp"
    few = picture.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    few.convert("RGB").save(file, lossless=True, quality=100, method=4)
    print(f"{file.name:32}{picture.width} × {picture.height}{file.stat().st_size:10,} bytes")


def opened(
    browser: Browser, address: str, size: tuple[int, int], look: Any, motion: Any = "reduce"
) -> Page:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=look, reduced_motion=motion
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def pictures(browser: Browser, address: str, prompt: str, only: str) -> None:
    """Take all views in both looks."""
    first = True
    for look in ("light", "dark"):
        page = opened(browser, address, _SIZE, look)
        if first:
            prepare(page, prompt)
        first = False
        until(page, DONE.format(5))
        for name, (act, panels) in VIEWS.items():
            if only in name:
                act(page)
                save(taken(page, panels), f"{name}-{look}")
        page.context.close()
        if only not in "phone":
            continue
        page = opened(browser, address, _PHONE, look)
        until(page, DONE.format(5))
        shots = []
        for act in ON_PHONE.values():
            act(page)
            shots.append(taken(page, ""))
        page.context.close()
        wide, high = shots[0].size
        whole = Image.new("RGB", (len(shots) * (wide + 12) - 12, high), "#8b8f96")
        for place, shot in enumerate(shots):
            whole.paste(shot, (place * (wide + 12), 0))
        save(whole, f"phone-{look}")


def main() -> None:
    """Serve a text and take pictures of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("--only", default="", help="of views with this in their name")
    asked = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        parser.error("there is no chromium on this machine")
    with served(asked.run, asked.prompt) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        pictures(browser, address, asked.prompt, asked.only)
        browser.close()


if __name__ == "__main__":
    main()
