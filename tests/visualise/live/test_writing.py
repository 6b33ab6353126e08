"""The view of a text shows what the model did, and a hand in it does what it says."""

import numpy as np
import pytest
import torch

from coterie.foundation.traces import Trace, TraceHeader, read_trace
from coterie.visualise.live.source import LiveText
from coterie.visualise.live.writing import WritingApp


async def until(pilot, ready) -> None:
    for _ in range(300):
        await pilot.pause(0.02)
        if ready():
            await pilot.pause(0.1)  # for the drawing
            return
    raise AssertionError("it did not come")


async def at_end(pilot, live) -> None:
    await until(pilot, lambda: not live.writing and pilot.app._drawn)


def rows(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


def test_panels_show_what_the_model_did(planted, on_screen, seen):
    """Each number is computed again from the decoder's own output on the finished text."""
    model = planted()
    live = LiveText(model.text(), write=model.write)

    async def play(pilot):
        await at_end(pilot, live)
        await pilot.press("left", "left")
        await pilot.pause(0.1)
        return seen(pilot.app)

    lines = on_screen(WritingApp(live), (160, 50), play)
    tokens = live.trace.records["token"].tolist()
    at = len(tokens) - 4  # two back from the last that was read
    output = model.read(tokens[:-1])
    logs = output.logits[0].log_softmax(-1)
    surprise = -float(logs[at - 1, tokens[at]])
    head = lines[0]
    assert f"token {at + 1} of {len(tokens)}:" in head
    assert f"surprise {surprise:.2f}" in head
    table = rows([half for line in lines for half in (line[:79], line[79:])])
    best = logs[at - 1].exp().max()
    assert any(f"{float(best):.3f}" in row for row in table), "the likeliest candidate"
    for stats in output.router_stats:
        layer, shares = str(stats.layer), stats.probabilities[at]
        chosen = stats.indices[at].tolist()
        gates = shares[chosen] / shares[chosen].sum()
        cells = [f"{float(share):.2f}" for share in shares]
        for expert, gate in zip(chosen, gates, strict=True):
            cells[expert] = f"[{float(gate):.2f}]"
        assert any(row[:5] == [layer, *cells] for row in table), "experts × layers"
        for phase, those in (("prompt", slice(0, 13)), ("generated", slice(13, None))):
            drawn = torch.bincount(stats.indices[those].flatten(), minlength=4)
            told = [f"{float(4 * n / drawn.sum()):.2f}" for n in drawn]
            (row,) = [row for row in table if row[:2] == [layer, phase]]
            assert [cell.strip("✗▲") for cell in row[3:7]] == told
            assert [cell[4:] for cell in row[3:7]] == [
                "▲" if float(each) >= 2 else "✗" if float(each) < 0.01 else "" for each in told
            ]
    drawn = torch.bincount(output.router_stats[0].indices.flatten(), minlength=4)
    assert any(
        row[:3] == ["load,", "weight", f"{float(4 * drawn[0] / drawn.sum()):.2f},"] for row in table
    ), "the card of 0:0"


def test_a_masked_expert_is_not_gone_to_from_here_on(planted, on_screen, seen):
    model = planted()
    live = LiveText(model.text(), write=model.write)

    async def play(pilot):
        await at_end(pilot, live)
        before = live.trace
        app = pilot.app
        await pilot.press("3")
        app.at = place = 20
        app.layer, app.expert = 1, int(before.records["experts"][place, 1, 0])
        await pilot.press("m")
        await at_end(pilot, live)
        masked = app.expert
        told = seen(app)
        app.at = place
        await pilot.press("u")
        await at_end(pilot, live)
        return before, place, masked, told

    app = WritingApp(live)
    seen_after = {}

    async def both(pilot):
        found = await play(pilot)
        seen_after["trace"] = live.trace
        return found

    before, _, masked, told = on_screen(app, (80, 24), both)
    assert f"Goes on from token 21: masked 1:{masked}." in told[-1]
    again = seen_after["trace"]
    assert again.records["token"].tolist() == before.records["token"].tolist(), (
        "let go of, the text is the untouched one"
    )
    np.testing.assert_array_equal(again.records["allowed"][20:21], before.records["allowed"][20:21])
    # And what was written with the mask is what the model writes so.
    direct = list(
        model.text([*before.records["token"][:13].tolist()], {1: (masked,)},
                   written=before.records["token"][13:21].tolist(), steered_from=20)
    )  # fmt: skip
    records = np.concatenate([part.records for part in direct])
    assert not (records[records["read"]]["experts"][20:, 1] == masked).any()


def test_pause_step_and_record(planted, on_screen, seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = planted()
    live = LiveText(model.text(), write=model.write)
    live.pause()

    async def play(pilot):
        await until(pilot, lambda: len(live.trace.records) >= 13)
        await pilot.pause(0.2)
        count = len(live.trace.records)
        assert count == 13, "the prompt is read at once, then it waits"
        await pilot.press("right")
        await until(pilot, lambda: len(live.trace.records) == count + 1)
        assert "paused" in seen(pilot.app)[0]
        await pilot.press("r", "space")
        await at_end(pilot, live)
        return seen(pilot.app)

    app = WritingApp(live)
    on_screen(app, (100, 30), play)
    again = read_trace(tmp_path / "planted-1.trace")
    trace = live.trace
    assert again.ending == trace.ending == "length"
    assert again.records.tobytes() == trace.records.tobytes()
    assert (again.texts, again.words) == (trace.texts, trace.words)


def test_a_record_is_played_and_takes_no_hand(planted, on_screen, seen):
    model = planted()
    live = LiveText(model.text(), write=model.write)
    live._thread.join()
    trace = live.trace

    async def play(pilot):
        first = seen(pilot.app)
        await pilot.press("m")
        await pilot.pause(0.1)
        refused = seen(pilot.app)[-1]
        await pilot.press("home", "space")
        await until(pilot, lambda: pilot.app._place >= 3)
        await pilot.press("space", "end", "2", "question_mark")
        await pilot.pause(0.2)
        return first, refused, seen(pilot.app)

    first, refused, helped = on_screen(WritingApp(LiveText(trace=trace)), (80, 24), play)
    assert f"token {len(trace.records) - 1} of" in first[0]
    assert "there is no model to go on with" in refused
    assert any("mask the expert" in line for line in helped)


FOREIGN = ["a", "\x1b[2J<b>", "שלום\u202e", "🙂", "x" * 100_000, "[red]", "\n", "\t", "[/]"]


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (20, 6)])
@pytest.mark.parametrize("experts", [4, 64, 0])
def test_any_text_and_any_size_is_shown(on_screen, seen, size, experts, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    header = TraceHeader(model="[red]\x1b[2J", vocabulary=50, experts=(experts, 0),
                         experts_per_token=2 if experts else 0, candidates=2, lens=1)  # fmt: skip
    records = np.zeros(len(FOREIGN), header.record_type())
    records["token"] = records["position"] = np.arange(len(FOREIGN))
    records["read"], records["generated"] = True, records["position"] > 2
    if experts:
        records["experts"][:, 0] = [1, 2]
        records["weights"] = 0.5
    records["before"], records["before_p"] = [1, 5], 0.5
    trace = Trace(header, records, FOREIGN, dict(enumerate(FOREIGN)), "length")

    async def play(pilot):
        shown = []
        for place in range(len(FOREIGN)):
            app.at, app.chosen = place, str([*app.panes, "text"][place % 8])
            app.draw()
            await pilot.pause()
            shown += seen(app)
        await pilot.press("c", "tab", "left", "h")
        return shown

    app = WritingApp(LiveText(trace=trace))
    lines = on_screen(app, size, play)
    page = "\n".join(lines)
    assert "\x1b" not in page
    assert "\u202e" not in page
    if size[0] >= 80:
        assert "\\x1b[2J<b>" in page
        assert "[red]" in page
        assert "🙂" in page
        assert max(len(line) for line in lines) <= size[0]
