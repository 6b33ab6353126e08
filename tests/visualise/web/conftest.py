"""A small model whose routing is planted, watched once for all tests of the page."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import uvicorn

from coterie.api.author import surprises_of
from coterie.evaluate.specialisation import selections
from coterie.foundation.runs import RunDirectory
from coterie.foundation.traces import Trace
from coterie.generate import Engine, SamplingSettings
from coterie.generate.watched import WatchedText
from coterie.model import DecoderSettings, routed_layers
from coterie.model.observe import Steering
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train.events import StepDone
from coterie.visualise.web.export import export_page
from coterie.visualise.web.pack import packed
from coterie.visualise.web.server import make_app

VOWELS, CONSONANTS = b"aeiou", b"bcdfghjklmnpqrstvwxyz"
TRAINING = """
import sys, time
from coterie.foundation.locks import own
from coterie.train.interrupt import InterruptRequest
with own(sys.argv[1], "training"), InterruptRequest() as asked:
    print("ready", flush=True)
    while not asked:
        time.sleep(0.02)
    print("a checkpoint", flush=True)
"""
PROMPT = "a rose is a rose, and it is not a nose:\n"


def planted(seed: int = 1, vowels: int = 1) -> Engine:
    """Return an engine whose first layer sends vowels to 1, consonants to 2, others to 3."""
    values = {
        "layers": 2, "width": 16, "context": 96, "vocab_size": 257,
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2},
        "initial": {"std": 0.3, "outputs": "plain"},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(seed))
    layer = routed_layers(decoder)[0]

    def plant(module, given, routing):
        kinds = decoder.latest.flatten()[-len(routing.indices) :]
        own = torch.tensor([vowels if b in VOWELS else 2 if b in CONSONANTS else 3
                            for b in kinds.tolist()])  # fmt: skip
        routing.indices[:, 0], routing.indices[:, 1] = own, 0
        routing.gates[:, 0], routing.gates[:, 1] = 0.75, 0.25

    decoder.register_forward_pre_hook(
        lambda module, given, named=None: setattr(decoder, "latest", given[0])
    )
    layer.router.register_forward_hook(plant)
    return Engine(decoder, Bytes().build([]))


def watch(engine: Engine, prompt: str, steering: Steering | None = None, **sampling) -> Trace:
    settings = SamplingSettings(**{"max_tokens": 24, "seed": 3, **sampling})
    text = WatchedText(engine, prompt, settings, name="planted", step=7,
                       steering=steering or Steering())  # fmt: skip
    seen = list(text)
    words = {token: word for each in seen for token, word in each.words.items()}
    texts = [piece for each in seen for piece in each.texts]
    return Trace(
        text.header, np.concatenate([each.records for each in seen]), texts, words, "length"
    )


@pytest.fixture(scope="session")
def engine() -> Engine:
    return planted()


@pytest.fixture(scope="session")
def trace(engine) -> Trace:
    return watch(engine, PROMPT)


class Author:
    """The engine as the page's author, without a run; the one of step 3 knew no vowels."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.engines = {3: planted(2, vowels=2), 7: engine}

    def facts(self):
        settings = SamplingSettings(max_tokens=24, seed=3).model_dump()
        names = ("temperature", "top_k", "top_p", "max_tokens", "seed")
        return {"name": "planted", "step": 7, "steps": [3, 7],
                "drawing": {name: settings[name] for name in names}}  # fmt: skip

    def write(self, start, ask, masked, forced):
        said = {"max_tokens": 24, "seed": 3, **ask.drawing.model_dump(exclude_none=True)}
        return WatchedText(
            self.engine, start.prompt, SamplingSettings(**said), name="planted", step=7,
            steering=Steering(masked, forced), written=start.written,
            steered_from=start.steered_from,
        )  # fmt: skip

    def surprises(self, tokens, step, masked, forced):
        return surprises_of(self.engines[step].decoder, tokens, masked, forced)

    def selections(self, tokens, step):
        return selections(self.engines[step].decoder, {"": [tokens]})


@pytest.fixture
def author(engine) -> Author:
    return Author(engine)


@pytest.fixture(scope="session")
def chromium():
    """The system's chromium, driven; tests that ask for it are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason='pip install "coterie[browser]"')
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page(chromium):
    """A page whose every error fails the test, with the network refused."""
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, offline=True)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else 0)
    page.on("dialog", lambda dialog: page.problems.append(dialog.message))
    yield page
    context.close()


@pytest.fixture
def opened(page, tmp_path):
    """Return a function that opens traces as an exported file."""

    def open_(*traces):
        file = tmp_path / "page.html"
        packs = [packed(trace, f"text {n}") for n, trace in enumerate(traces)]
        file.write_text(export_page(packs), encoding="utf-8")
        page.problems.clear()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    assert page.problems == []


def figures(page, panel):
    """Return a panel's table: its rows by their names."""
    page.evaluate(f"document.querySelector('#{panel} details.figures').open = true")
    page.wait_for_selector(f"#{panel} .figures table")
    rows = page.locator(f"#{panel} .figures tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
    )
    return {row[0]: row[1:] for row in rows}


def numbers(cells):
    return [float(cell.replace("−", "-").rstrip("✗▲")) for cell in cells]


def until(page, condition):
    """Wait for a condition; the page's policy lets no string be made a script inside it."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it never came that {condition}")


def show(page, view):
    page.click(f"#tab-{view}")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@contextmanager
def serving(chromium, studio, board, view="", viewers=1):
    """Serve to viewers, each in a context of its own; yield their pages."""
    listening = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listening.getsockname()[1]}"
    app = make_app(studio, board, [host], "secret")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    server.config.load()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    contexts = [
        chromium.new_context(viewport={"width": 1300, "height": 900}) for _ in range(viewers)
    ]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.goto(f"http://{host}/?token=secret{view}")
        page.wait_for_selector("html[data-ready]")
    try:
        yield pages
    finally:
        for context in contexts:
            context.close()
        server.should_exit = True
        thread.join(10)


def step(number, loss):
    return StepDone(
        step=number, loss=loss, learning_rate=0.1, gradient_norm=1.0, tokens=number * 10,
        seconds=0.5, tokens_per_second=20.0, memory_bytes=1,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    found = RunDirectory.create(tmp_path, "mine")
    found.config.write_text("model: {}\n")
    return found


@pytest.fixture
def trained(run):
    """A process that owns the run as one that trains does, and listens to signals as it does."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()
