"""Panels that move, or that a run fills: their figures are those of the routing behind them."""

import numpy as np
import pytest

from coterie.foundation.event_log import EventLog
from coterie.foundation.traces import TraceWriter, read_trace
from coterie.train.events import (
    ExpertWatched,
    LayerLoad,
    LayerWatched,
    LoadMeasured,
    RoutingWatched,
    Sampled,
)
from coterie.visualise.routing import load_of
from coterie.visualise.web.runs import Board
from coterie.visualise.web.studio import Studio
from tests.visualise.web.conftest import figures, numbers, serving, show, step, until

pytestmark = pytest.mark.browser


def over_fair(records, layer, expert, experts=4):
    """Return the mean of an expert's share of each token's weight, times E."""
    weights = records["weights"][:, layer]
    own = np.where(records["experts"][:, layer] == expert, weights, 0).sum(1)
    return float((own / weights.sum(1)).mean() * experts)


def shade(page, value):
    """Return the colour that the page gives a value of the heat map."""
    low, high = ([int(page.evaluate(f"getComputedStyle(document.documentElement)"
                                    f".getPropertyValue('--{name}').trim()")[at : at + 2], 16)
                  for at in (1, 3, 5)] for name in ("low", "high"))  # fmt: skip
    part = round(100 * max(0, min(1, value / 3))) / 100
    return [a + (b - a) * part for a, b in zip(low, high, strict=True)]


def test_each_cell_of_the_heat_map_is_the_weight_of_its_tokens(opened, trace):
    page = opened(trace)
    page.evaluate("coterie.go(0)")
    show(page, "experts")
    shown = figures(page, "heat")
    read, count = trace.records[trace.records["read"]], len(trace.texts)
    place = np.arange(len(read)) * 8 // count
    for layer in (0, 1):
        for expert in range(4):
            own = [over_fair(read[place == part], layer, expert) for part in range(8)]
            np.testing.assert_allclose(numbers(shown[f"{layer}:{expert}"]), own, atol=0.0051)
    # The picture itself: one token a column, since there is room for all.
    columns, left = page.evaluate("[coterie.heat.columns, coterie.heat.canvas.width]")
    assert columns == count
    for token in (3, 17, 40):
        for expert in range(4):
            x = 44 + (token + 0.5) * (left - 44) / count
            colour = page.evaluate(
                f"(node => [...node.getContext('2d').getImageData({x} * devicePixelRatio,"
                f" {11 * expert + 5} * devicePixelRatio, 1, 1).data])"
                "(document.querySelector('#heat canvas'))"
            )
            expected = shade(page, over_fair(read[token : token + 1], 0, expert))
            np.testing.assert_allclose(colour[:3], expected, atol=1.1)


def test_a_replay_tells_of_every_token_what_its_way_was(opened, trace):
    page = opened(trace)
    first = len(trace.texts) - 9
    told = page.evaluate(
        """async first => {
          const told = new Map(), before = coterie.flow.frames;
          coterie.go(first);
          coterie.play();
          while (coterie.timer) {
            await new Promise(requestAnimationFrame);
            told.set(coterie.flow.at, document.querySelector("#flow .words").textContent);
          }
          return [[...told], coterie.flow.frames - before, coterie.state.at];
        }""",
        first,
    )
    ways, frames, last = dict(told[0]), *told[1:]
    assert last == len(trace.texts) - 2  # the last token is read no more
    assert frames > 3
    assert set(ways) >= set(range(first, last + 1))
    for token in range(first, last + 1):
        record, words = trace.records[token], []
        for layer in (0, 1):
            share = record["weights"][layer] / record["weights"][layer].sum()
            ranked = sorted(zip(share, record["experts"][layer], strict=True), reverse=True,
                            key=lambda pair: pair[0])  # fmt: skip
            way = " and ".join(
                f"expert {expert} ({100 * part:.0f}\u00a0%)" for part, expert in ranked
            )
            words.append(f"in layer {layer} to {way}")
        assert ways[token].endswith(f"went {', '.join(words)}.")


def counts_of(trace, phase):
    return [
        LayerLoad(layer=layer, dropped=0, load=np.rint(
            own.share * 2 * own.tokens / 4).astype(int).tolist())
        for layer in (0, 1) for own in [load_of(trace, layer, phase)]
    ]  # fmt: skip


def look(number, gain):
    """Return a look in which expert 1 of layer 0 is known to like two tokens."""
    fond = ExpertWatched(weight=1.25, position=0.5, favourites=((101, 7, 3.5), (97, 4, 2.25)))
    plain = ExpertWatched(weight=0.75, position=0.5)
    layer = LayerWatched(
        layer=0, residual=1, attention=1, feedforward=1, load=(4, 8, 2, 2), experts=(plain, fond),
        token=0.25 + gain, token_null=0.125, position=0.25, position_null=0.125,
    )  # fmt: skip
    return RoutingWatched(step=number, tokens=16, layers=(layer,), words={101: "e", 97: "<b>a"})


def test_a_run_is_shown_as_it_was_recorded_and_through_its_steps(chromium, run, trace):
    loads = [load_of(trace, layer, phase).share for phase in ("prompt", "generated")
             for layer in (0, 1)]  # fmt: skip
    with EventLog(run.events) as log:
        for number, phase in ((1, "prompt"), (2, "generated")):
            log(step(number, 4.0 - number))
            log(LoadMeasured(step=number, steps=1, layers=counts_of(trace, phase)))
            log(look(number, number / 4))
            log(Sampled(step=number, prompt="To <i>be</i>", text=f"sample {number} \x1b[2J"))
    view = "&view=training&run=mine"
    with serving(chromium, Studio(), Board(lambda: [run]), view) as (page,):
        until(page, "coterie.training.loaded.length === 1")
        for place, number in ((1, 2), (0, 1)):
            page.locator("#lapse input").fill(str(place))
            shown = figures(page, "lapse")
            for layer in (0, 1):
                own = loads[2 * place + layer]
                np.testing.assert_allclose(numbers(shown[f"layer {layer}"]), own, atol=0.0051)
            assert page.inner_text("#lapse output") == f"step {number}"
            most = max(share.max() for share in loads[2 * place : 2 * place + 2])
            words = page.inner_text("#lapse .words")
            assert f"At step {number} the busiest expert took {most:.2f} times" in words
        story = page.inner_text("#told .words")
        assert "in layer 0 0.75 nats at step 2 (chance 0.13)" in story
        told = figures(page, "told")
        assert told["0:1"] == ["1.25", "‘e’ ×3.5  ‘<b>a’ ×2.3"]
        assert told["0:0"] == ["0.75", "–"]
        samples = page.locator("#samples article").all_inner_texts()
        assert [each.split("\n")[0] for each in samples] == ["step 2", "step 1"]
        assert "To <i>be</i>sample 2 \\x1b[2J" in samples[0]
        assert page.locator("#samples article pre i").first.inner_text() == "To <i>be</i>"
        validation = figures(page, "curves")
        assert validation == {}
        assert "mine is at step 2 with a training loss of" in page.inner_text("#curves .words")


def test_a_recorder_that_was_killed_is_said_to_be(chromium, run, trace, tmp_path, killed_recorder):
    with TraceWriter(tmp_path / "made.trace", trace.header) as writer:
        writer.add(trace.records, trace.texts, trace.words)
        writer.end("length")
    left = read_trace(killed_recorder(run.path, tmp_path / "made.trace"))
    assert len(left.texts) in (32, 48)  # whole blocks
    assert left.records.tobytes() == trace.records[: len(left.texts)].tobytes()
    studio = Studio()
    studio.show(read_trace(tmp_path / "made.trace"), "whole")
    studio.show(left, "left")
    with serving(chromium, studio, Board(lambda: [run]), "&run=mine") as (page,):
        until(page, "coterie.texts.size === 2 && [...coterie.texts.values()].every(t => t.done)")
        for number, told in ((2, True), (1, False)):
            page.evaluate(f"coterie.open({number})")
            assert ("cut short" in page.inner_text(".heading")) is told
        page.click("#tab-training")
        page.wait_for_selector("#runs td:has-text('no end recorded')")
        page.wait_for_selector("#curves .words:has-text('mine is at step ')")
