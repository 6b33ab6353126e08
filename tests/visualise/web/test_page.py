"""What the page shows is what the model did, in a browser; and it is quick and obeys no text."""

from dataclasses import replace

import numpy as np
import pytest

from coterie.evaluate.specialisation import information
from coterie.foundation.event_log import EventLog
from coterie.foundation.traces import Trace
from coterie.model.observe import Steering
from coterie.visualise.routing import card_of, entropy_of, load_of, weights_of
from coterie.visualise.web.runs import Board
from coterie.visualise.web.studio import Lapse, Studio
from tests.visualise.web.conftest import (
    PROMPT,
    VOWELS,
    figures,
    numbers,
    serving,
    show,
    step,
    until,
    watch,
)

pytestmark = pytest.mark.browser
EVIL = ["</script><img src=x onerror=alert(1)>", "\x1b[2J\x1b]0;x\x07", "👩‍👩‍👧‍👦", "שלום‮", "عربى",
        "x" * 100_000, "\ud800", "\n", "\t", "‮abc", "&lt;b&gt;", "\x00"]  # fmt: skip


def test_planted_routing_is_what_the_page_shows(opened, trace):
    page = opened(trace)
    show(page, "experts")
    load = figures(page, "load")
    for layer in (0, 1):
        for phase in ("prompt", "generated"):
            own = load_of(trace, layer, phase)
            shown = load[f"{layer} {phase} load"]
            assert shown[0] == str(own.tokens)
            np.testing.assert_allclose(numbers(shown[1:]), own.share, atol=0.0051)
            weight = numbers(load[f"{layer} {phase} weight"][1:])
            np.testing.assert_allclose(weight, own.weight, atol=0.0051)
    assert load["0 prompt load"][1] == "2.00▲"  # expert 0 is planted as everybody's second
    vowels = sum(each in VOWELS for each in PROMPT.encode())
    assert numbers(load["0 prompt load"])[2] == pytest.approx(2 * vowels / len(PROMPT), abs=0.0051)
    for layer, (median, *_, entropy) in enumerate(
        figures(page, "margins")[f"layer {n}"] for n in (0, 1)
    ):
        read = trace.records[trace.records["read"]]
        assert numbers([median])[0] == pytest.approx(np.median(read["margin"][:, layer]), abs=6e-4)
        assert numbers([entropy])[0] == pytest.approx(entropy_of(trace, layer).mean(), abs=6e-4)


def test_one_token_is_shown_as_it_was(opened, trace):
    page = opened(trace)
    page.click("[data-token='45']")
    record, before = trace.records[45], trace.records[44]
    chances = page.locator("#candidates td.bar .figure").all_inner_texts()
    for place, column in ((0, "before_p"), (1, "after_p")):
        shown = numbers(chances[place::2])
        np.testing.assert_allclose(shown, record[column], atol=6e-4)
    values = figures(page, "candidates")
    assert numbers(values["surprise"])[0] == pytest.approx(record["surprise"], abs=6e-4)
    page.keyboard.press("ArrowLeft")
    shares = figures(page, "now")
    norms = figures(page, "stream")
    ways = figures(page, "flow")
    lens = figures(page, "lens")
    for layer in (0, 1):
        name = f"layer {layer}"
        np.testing.assert_allclose(numbers(shares[name]), before["shares"][layer], atol=6e-4)
        own = [before[part][layer] for part in ("residual", "attention", "feedforward")]
        np.testing.assert_allclose(numbers(norms[name]), own, atol=6e-4)
        shown = dict(each.split(": ") for each in ways[name][0].split("  "))
        expected = zip(before["experts"][layer], before["weights"][layer], strict=True)
        for expert, weight in expected:
            share = weight / before["weights"][layer].sum()
            assert float(shown[str(expert)]) == pytest.approx(share, abs=6e-4)
        best = float(lens[name][0].split("  ")[0].rsplit(" ", 1)[1])
        assert best == pytest.approx(before["lens_p"][layer][0], abs=6e-4)
        looks = figures(page, "attention")[name]
        assert float(looks[0]) == pytest.approx(before["attention_entropy"][layer], abs=6e-4)
        back, weight = looks[1].split("  ")[0].split(": ")
        assert (int(back[1:]), float(weight)) == (
            before["attended"][layer][0], pytest.approx(before["attended_p"][layer][0], abs=6e-4),
        )  # fmt: skip


def test_the_atlas_tells_what_was_planted_beside_chance(opened, trace):
    page = opened(trace)
    show(page, "experts")
    found = page.evaluate("coterie.range.find(panel => panel.found && panel.cards).found")
    read = trace.records[trace.records["read"]]
    weights = weights_of(trace, 0)
    whole = found["token"]["layer"]
    assert whole["nats"] == pytest.approx(information(read["token"].astype(int), weights))
    assert whole["p"] == pytest.approx(0.01)
    assert whole["null"] < whole["nats"]
    share = weights.sum(0) / weights.sum()
    summed = sum(
        each["nats"] * part for each, part in zip(found["token"]["experts"], share, strict=True)
    )
    assert summed == pytest.approx(whole["nats"])
    eighths = np.minimum(7, 8 * read["position"] // len(trace.texts)).astype(int)
    assert found["place"]["layer"]["nats"] == pytest.approx(information(eighths, weights))
    rows = page.locator("#atlas tbody tr").all_inner_texts()
    assert "vowel" in rows[1]
    card = card_of(trace, 0, 1)
    page.click("#atlas tbody tr:nth-child(2) button")
    page.locator("#card", has_text="of a fair share").wait_for()
    text = page.inner_text("#card")
    assert f"{card.share:.2f} of a fair share" in text
    for favourite in card.favourites[:3]:
        word = trace.words[favourite.token]
        assert f"‘{word}’ ×{favourite.lift:.1f} (n={favourite.seen})" in text


def test_company_and_a_chosen_part(opened, trace):
    page = opened(trace)
    show(page, "experts")
    members = (trace.records[:-1]["experts"][:, 0, :, None] == np.arange(4)).any(1)
    company = figures(page, "company")
    lift = numbers(company["0:0"][1:2])[0]  # of 0 and 1: everybody has 0
    assert lift == pytest.approx(1.0)
    assert company["0:0"][0] == "–"
    page.fill("#heat input >> nth=0", "5")
    page.fill("#heat input >> nth=1", "20")
    page.keyboard.press("Tab")
    until(page, "coterie.state.brush && coterie.state.brush[1] === 20")
    show(page, "experts")
    part = replace(trace, records=trace.records[4:20], texts=trace.texts[4:20])
    own = load_of(part, 0, "prompt")
    shown = figures(page, "load")["0 prompt load"]
    assert shown[0] == "16"
    np.testing.assert_allclose(numbers(shown[1:]), own.share, atol=0.0051)
    assert members.sum() > own.tokens


def test_two_texts_part_where_their_tokens_do(opened, trace, engine):
    other = watch(engine, PROMPT, Steering({1: (2,)}))
    page = opened(trace, other)
    show(page, "compare")
    one, two = (each.records["token"] for each in (trace, other))
    first = int(np.argmax(one != two))
    assert first > 0
    assert f"They part at token {first + 1};" in page.inner_text("#compare .words")
    assert (
        page.locator("#compare .pair > div >> nth=1").locator(".parted").count() == len(two) - first
    )
    shown = figures(page, "compare")
    for layer in (0, 1):
        loads = [load_of(each, layer).share for each in (trace, other)]
        for expert in range(4):
            a, b, _ = numbers(shown[f"{layer}:{expert}"])
            assert (a, b) == pytest.approx((loads[0][expert], loads[1][expert]), abs=0.0051)
    # Up to where they part layer 0 reads the same; a masked expert moves the tokens that it had.
    cells = (
        page.locator("#compare .body > .body, #compare .body table")
        .last.locator("td")
        .all_inner_texts()
    )
    both, tops = min(first, len(one) - 1), []
    for each in (trace, other):
        record = each.records[:both]
        best = record["weights"][:, 1].argmax(1)
        tops.append(record["experts"][np.arange(both), 1, best])
    assert cells[-1] == f"{100 * (tops[0] != tops[1]).mean():.0f}\u00a0%"


def test_text_from_outside_is_shown_and_not_obeyed(opened, trace):
    count = len(EVIL)
    words = {int(token): EVIL[n] for n, token in enumerate(trace.records["token"][:count])}
    texts = [*EVIL, *trace.texts[count:]]
    page = opened(replace(trace, texts=texts, words={**trace.words, **words}))
    shown = page.inner_text(".ribbon")
    assert "</script><img" in shown
    assert "\\x1b[2J" in shown
    assert "\u202e" not in shown
    assert "(100,000 characters)" in shown
    assert page.locator("main img").count() == 0
    for token in range(count):
        page.click(f".ribbon [data-token='{token}']")
    for view in ("experts", "compare", "text"):
        show(page, view)
        wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window


@pytest.mark.parametrize("look", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened, trace, look):
    page = opened(trace, trace)
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=look)
    try:
        for view in ("text", "experts", "compare"):
            show(page, view)
            assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.set_viewport_size({"width": 1300, "height": 900})


def test_keys_and_names_for_those_who_do_not_point(opened, trace):
    page = opened(trace)
    page.focus(".ribbon")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    until(page, "coterie.state.at === 1")
    until(
        page,
        "document.querySelector('.ribbon').getAttribute('aria-activedescendant').endsWith('-1')",
    )
    for colouring in ("surprise", "entropy", "expert"):  # and the token stays marked
        page.keyboard.press("c")
        until(page, f"coterie.state.colouring === '{colouring}' && coterie.asked === false")
        assert page.locator(".ribbon .at").get_attribute("data-token") == "1"
    page.keyboard.press("ArrowUp")
    until(page, "coterie.state.layer === 1")
    page.keyboard.press("2")
    page.wait_for_selector("#view-experts:not([hidden])")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    formulas = page.locator(".panel .formula").all_text_contents()
    assert len(formulas) == page.locator(".panel").count() > 15
    assert all(len(formula) > 20 for formula in formulas)  # no panel without how it is computed
    for view in ("text", "experts", "compare"):
        show(page, view)
        nameless = page.evaluate(
            """[...document.querySelectorAll('button, input, select, canvas, textarea, [role]')]
            .filter(e => e.checkVisibility() && e.role !== 'alert' && !e.title
              && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')
              && !e.labels?.length && !e.textContent.trim())
            .map(e => e.outerHTML)"""
        )
        assert nameless == []


def long_trace(trace: Trace, count: int) -> Trace:
    again = -(-count // (len(trace.texts) - 1))
    records = np.tile(trace.records[:-1], again)[:count].copy()
    records["position"] = np.arange(count)
    return replace(trace, records=records, texts=(trace.texts[:-1] * again)[:count])


def test_ten_thousand_tokens_open_and_are_all_there(opened, trace):
    page = opened(long_trace(trace, 10_000))
    assert page.evaluate("coterie.trace.length") == 10_000
    assert page.locator(".ribbon [data-token]").count() == 10_000
    show(page, "experts")
    assert "Over 10,000 tokens" in page.inner_text("#load .words")


@pytest.fixture
def served(author, chromium):
    """A page of a server that writes; its network ends at this server."""
    studio = Studio(author)
    with serving(chromium, studio, Board(list)) as (page,):
        yield page, studio


def test_two_follow_a_run_and_one_of_them_stops_it(chromium, run, trained):
    board = Board(lambda: [run], control=True)
    view = "&view=training&run=mine"
    with (
        EventLog(run.events) as log,
        serving(chromium, Studio(), board, view, viewers=2) as pages,
    ):
        for number, loss in ((1, 4.0), (2, 3.5)):
            log(step(number, loss))
            ((*_, smoothed),) = board.curves("mine")["loss"][-1:]
            for page in pages:
                words = f"mine is at step {number} with a training loss of {smoothed:.3f}"
                page.wait_for_selector(f"#curves .words:has-text('{words}')")
        page = pages[0]
        page.wait_for_selector("#runs:has-text('1 is being trained now')")
        page.focus("#act-mine")
        page.keyboard.press("Enter")
        page.wait_for_selector("#confirm:has-text('as Ctrl-C in its terminal would')")
        page.keyboard.press("Enter")  # to leave it is what comes first
        page.wait_for_selector("#confirm", state="detached")
        assert trained.poll() is None
        page.click("#act-mine")
        page.click("#confirm button[value=yes]")
        page.wait_for_selector("#runs:has-text('mine was asked to end')")
        assert trained.communicate(timeout=30)[0] == "a checkpoint\n"
        for page in pages:
            page.wait_for_selector("#act-mine:has-text('Resume')")


def test_a_text_is_read_by_every_checkpoint(served, trace):
    page, studio = served
    page.fill("#ask-prompt", PROMPT)
    page.click("button.main")
    until(page, "coterie.trace && coterie.trace.done")
    show(page, "compare")
    page.click("#textlapse button")
    until(page, "coterie.lapse.found")
    found = studio.lapse(Lapse(text=1))
    planted = found["layers"][0]
    shown = figures(page, "textlapse")
    for place, name in enumerate(("3", "7")):
        own = [*(each["kept"][place] for each in found["layers"]), found["surprise"][place]]
        np.testing.assert_allclose(numbers(shown[name]), own, atol=6e-4)
    assert numbers(shown["even, k / E"][:2]) == [0.5, 0.5]
    page.evaluate("coterie.set({layer: 0})")
    for place in (1, 0):
        page.locator("#textlapse input").fill(str(place))
        tokens = page.locator("#textlapse .ribbon span").evaluate_all(
            "spans => spans.map(span => Number(span.className.match(/e(\\d)/)[1]))"
        )
        assert tokens == planted["experts"][place]
    words = page.inner_text("#textlapse .words")
    assert f"{100 * planted['kept'][0]:.0f}\u00a0% of the experts" in words
    assert "(by accident 50\u00a0%)" in words


def test_a_text_is_written_and_touched_from_the_page(served, trace):
    page, studio = served
    page.fill("#ask-prompt", PROMPT)
    page.click("button.main")
    until(page, "coterie.trace && coterie.trace.done")
    np.testing.assert_array_equal(studio.find(1).trace().records["token"], trace.records["token"])
    page.evaluate("coterie.set({layer: 1, expert: 2})")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("m")
    until(page, "coterie.effects.found && coterie.texts.size === 3")
    until(page, "[...coterie.texts.values()].every(text => text.done)")
    without, control = studio.find(2), studio.find(3)
    assert without.header.masked == ("1:2",)
    assert control.title.startswith("control: without 1:")
    assert not (without.trace().records[:-1]["experts"][:, 1] == 2).any()
    assert "without 1:2: each of the" in page.inner_text("#effects .words")
    show(page, "compare")
    page.wait_for_selector("#compare .words:has-text('part at token')")
