"""A model with planted routing, and screens as a person sees them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from coterie.generate import Engine, SamplingSettings
from coterie.generate.watched import WatchedText
from coterie.model import DecoderSettings, routed_layers
from coterie.model.observe import Steering
from coterie.tokenizer.raw_bytes import Bytes

pytest.importorskip("textual")

SAMPLING = SamplingSettings(max_tokens=24, seed=5)


class Planted:
    """A model whose first layer sends letters of the same last bits to the same two experts."""

    def __init__(self, experts: int = 4, **changes) -> None:
        settings = {
            "layers": 2, "width": 16, "context": 64, "vocab_size": 257, "position": "none",
            "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {"kind": "moe", "experts": [{"count": experts}], "experts_per_token": 2},
            "initial": {"std": 0.3, "outputs": "plain"},
        } | changes  # fmt: skip
        decoder = DecoderSettings.model_validate(settings)
        self.decoder = decoder.build(torch.Generator().manual_seed(2)).double()
        generator = torch.Generator().manual_seed(4)
        for part in routed_layers(self.decoder).values():
            part.router.weight.data.normal_(0, 2, generator=generator)
        self.engine = Engine(self.decoder, Bytes().build([]))

    def text(self, prompt="To be, or not", masked=None, forced=None, **options) -> WatchedText:
        steering = Steering(masked or {}, forced or {})
        return WatchedText(self.engine, prompt, options.pop("sampling", SAMPLING), name="planted",
                           step=7, steering=steering, **options)  # fmt: skip

    def write(self, prompt, written, masked, forced, steered_from) -> WatchedText:
        return self.text(prompt, masked, forced, written=written, steered_from=steered_from)

    @torch.no_grad()
    def read(self, tokens):
        """Return what the decoder itself says of a text, without anybody looking."""
        return self.decoder.eval()(torch.tensor([tokens]))


@pytest.fixture
def planted():
    return Planted


@pytest.fixture
def on_screen():
    """Return what runs an app of a size through a coroutine that is given its pilot."""

    def run(app, size, play):
        async def main():
            async with app.run_test(size=size) as pilot:
                await pilot.pause(0.1)
                return await play(pilot)

        # Playwright's loop runs on in the thread of tests that drive a browser: this has its own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(asyncio.wait_for(main(), 180))).result()

    return run


@pytest.fixture
def seen():
    """Return what a screen shows, line by line."""

    def lines(app) -> list[str]:
        strips = app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]

    return lines


@pytest.fixture
def drawn():
    """Return what waits until a screen shows what its app knows."""

    async def wait(pilot):
        app = pilot.app
        app._drawn, app._begun = None, 0
        app.tick()
        await pilot.pause(0.1)
        app.screen._refresh_layout()
        await pilot.pause()

    return wait
