"""The report is one file that works by itself, bears any text, and stays small."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest
import yaml

from coterie.foundation.errors import RunError, UserError
from coterie.foundation.event_log import EventLog
from coterie.foundation.events import Notice
from coterie.foundation.runs import RunDirectory
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    Evaluated,
    LayerLoad,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)
from coterie.visualise.compare import comparison, flatten, unique_names
from coterie.visualise.report import report_page, write_comparison, write_report
from coterie.visualise.series import series_of

VOID = {"meta", "img", "input", "br", "path", "circle"}


class Page(HTMLParser):
    """Collects a page's tags, ids and texts and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.tags
            if name == tag and all(attributes.get(k) == v for k, v in wanted.items())
        ]


def test_a_report_tells_the_whole_run(synthetic_run):
    run = synthetic_run(steps=200, layers=3, resume_at=100)
    path = write_report(run)
    assert path == run.report
    page = Page(path.read_text(encoding="utf-8"))
    ids = {attributes["id"] for attributes in page.all("section")}
    assert ids == {"loss", "samples", "experts", "optimizer", "record", "configuration"}
    text = " ".join(page.text)
    for part in ("quickstart-3", "finished", "validation loss", "nats per character", "2.13 M",
                 "888 k active per token", "resumed", "is damaged", "Selection bias",
                 "router z-loss", "a 2-core processor", "Gradient norm", "FLOPs",
                 "Router entropy", "Bias drift", "Update by part"):  # fmt: skip
        assert part in text, part
    assert len(page.all("li", **{"data-step": "200"})) == 1
    assert len(page.all("div", **{"class": "map"})) == 6  # three layers: load and bias
    assert len(page.all("div", **{"class": "plot"})) == 12


def test_a_report_loads_nothing(synthetic_run):
    html = write_report(synthetic_run(steps=60)).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.all("link")
    assert all("src" not in attributes for attributes in page.all("script"))
    assert all(a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
    assert all(a["href"].startswith("#") for a in page.all("a"))
    assert not re.search(r"url\(|@import|https?://|\bfetch\(|XMLHttp", html)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def test_every_picture_has_words_and_every_anchor_exists(synthetic_run):
    page = Page(write_report(synthetic_run(steps=60)).read_text(encoding="utf-8"))
    for kind in ("plot", "map"):
        assert all(
            a["role"] == "img" and a["aria-label"] for a in page.all("div", **{"class": kind})
        )
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= ids
    assert all(a["alt"] == "" for a in page.all("img"))


def test_text_from_outside_cannot_become_markup():
    evil = "</script></style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00"
    start = RunStarted(name=evil, preset=evil, parameters=1, active_parameters=1, steps=2,
                       tokens_per_step=1, device=evil, precision=evil,
                       machine={evil: evil})  # fmt: skip
    step = StepDone(step=1, loss=2.0, learning_rate=1, gradient_norm=1, tokens=1, seconds=1,
                    tokens_per_second=1, auxiliary={evil: 1.0})  # fmt: skip
    series = series_of(
        [start, step, Evaluated(step=1, split=evil, loss=2, tokens=1, seconds=1),
         Sampled(step=1, prompt=evil, text=evil), Notice(level="warning", message=evil),
         CheckpointDamaged(path=evil, problem=evil),
         CheckpointSaved(step=1, path=evil, bytes=1, seconds=1),
         LoadMeasured(step=1, steps=1, layers=(LayerLoad(layer=0, load=(3, 1), dropped=1),)),
         RunEnded(step=1, status="failed", message=evil, seconds=1)],
        config=f"{evil}: {evil} # {evil}",
    )  # fmt: skip
    html = report_page(series)
    page = no_markup_from_outside(html)
    cells = [text for text in page.text if "alert(1)" in text]
    # Title, heading, alert, record, checkpoint's place, sample, prompt, ...: shown, not run.
    assert len(cells) >= 12
    assert html.count("alert(1)") == html.count("&lt;script&gt;alert(1)")


def no_markup_from_outside(html: str) -> Page:
    """Return the page, which has the tags that it is made of and none that came with a text."""
    page = Page(html)
    assert len(page.all("script")) == 1
    assert len(page.all("style")) == 1
    assert all(each["src"].startswith("data:") for each in page.all("img"))
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not set(html) & set("\x00\x1b\x85")
    return page


def test_names_and_settings_of_compared_runs_cannot_become_markup():
    evil = "</script><img src=x onerror=alert(1)><b>\"'&\x00\x1b[2J"
    runs = []
    for number in (1, 2):
        start = RunStarted(name=f"{evil}{number}", preset=evil, parameters=1, active_parameters=1,
                           steps=2, tokens_per_step=1, device=evil, precision=evil)  # fmt: skip
        step = StepDone(step=1, loss=2.0, learning_rate=1, gradient_norm=1, tokens=1, seconds=1,
                        tokens_per_second=1)  # fmt: skip
        load = LoadMeasured(step=1, steps=1, layers=(LayerLoad(layer=0, load=(3, 1)),))
        config = yaml.safe_dump({f"<b>{evil}": f"{evil}{number}"})
        runs.append(series_of(
            [start, step, load, Evaluated(step=1, split=evil, loss=2, tokens=1, seconds=1),
             Sampled(step=1, prompt=evil, text=evil)], config=config,
        ))  # fmt: skip
    html = comparison(runs)
    page = no_markup_from_outside(html)
    assert not page.all("img")
    places = [text for text in page.text if "onerror=alert(1)" in text]
    # Beside each other in the lead, the figures' heads, lines' ends, samples and differences.
    assert len(places) >= 12
    heads = [text for text in page.text if text.endswith(("[2J1", "[2J2")) and "onerror" in text]
    assert len(heads) >= 4
    assert html.count("onerror=alert(1)") == html.count("&lt;img src=x onerror=alert(1)&gt;")


def test_a_long_run_makes_a_small_page(synthetic_run):
    path = write_report(synthetic_run(steps=6000, layers=4, every=200))
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("kinds", [(), (RunStarted,), (StepDone,), (LoadMeasured,), (Evaluated,),
                                   (Sampled,), (RunEnded,), (RunStarted, StepDone)])  # fmt: skip
def test_a_page_can_be_made_at_any_moment(synthetic, kinds):
    events = [event for event in synthetic(steps=60, resume_at=50) if isinstance(event, kinds)]
    page = Page(report_page(series_of(events)))
    assert ("No step has been recorded yet." in page.text) == (StepDone not in kinds)


def test_a_run_that_blew_up_can_be_looked_at(synthetic):
    nan, inf = float("nan"), float("inf")
    events = [
        event.model_copy(update={"loss": nan, "gradient_norm": inf})
        if isinstance(event, StepDone) and event.step > 30
        else event
        for event in synthetic(steps=60, every=20)
    ]
    page = Page(report_page(series_of(events)))
    assert page.all("path", **{"class": "line"})


def test_a_run_without_experts_has_no_section_about_them(synthetic):
    page = Page(report_page(series_of(synthetic(steps=60, layers=0))))
    assert "experts" not in {attributes["id"] for attributes in page.all("section")}


def test_idle_experts_and_dropped_tokens_are_told(synthetic):
    text = " ".join(Page(report_page(series_of(synthetic(steps=60, dead=True)))).text)
    assert "one is idle" in text
    assert "Dropped tokens" in text
    assert "No token was dropped" not in text


def test_the_share_of_dropped_tokens_is_of_all_that_chose(synthetic):
    # The load counts every choice, whether or not it found room.
    layer = LayerLoad(layer=0, load=(60, 20), dropped=20)
    events = [*synthetic(steps=10, layers=0), LoadMeasured(step=10, steps=1, layers=(layer,))]
    page = Page(report_page(series_of(events)))
    (label,) = [label for each in page.all("div", **{"class": "plot"})
                if (label := each["aria-label"] or "").startswith("Dropped tokens")]  # fmt: skip
    assert "goes from 25.0 at 10" in label


def test_samples_of_one_step_stand_together(synthetic):
    samples = [Sampled(step=s, prompt=p, text="x") for s in (5, 10) for p in ("A", "B")]
    page = Page(report_page(series_of([*synthetic(steps=10, every=50)[:5], *samples])))
    assert [a["data-step"] for a in page.all("li") if "data-step" in a] == ["5", "10"]
    assert len(page.all("div", **{"class": "sample"})) == 4


def test_a_comparison_lays_runs_over_each_other(synthetic_run):
    one = synthetic_run(steps=100, name="one")
    two = synthetic_run(steps=120, layers=2, seed=2, floor=1.6, name="two")
    path = write_comparison([one, two])
    assert path == one.path.parent / "comparison.html"
    page = Page(path.read_text(encoding="utf-8"))
    names = [a["data-label"] for a in page.all("path") if "data-label" in a]
    assert names.count("one") == names.count("two") == 7
    text = " ".join(page.text)
    assert "model.layers" in text
    assert "train.steps" in text
    assert "model.width" not in text
    assert len(page.all("td", **{"class": "best"})) >= 3


def test_a_comparison_bears_runs_that_tell_little(synthetic):
    empty, dense = series_of([], name="dense"), series_of(synthetic(steps=60, layers=0))
    page = Page(comparison([empty, dense, empty]))
    assert all(name in " ".join(page.text) for name in ("dense", "(2)"))


def test_runs_of_one_name_are_told_apart():
    assert unique_names([series_of([], "a"), series_of([], "a")]) == ["a", "a (2)"]


def test_settings_become_dotted_paths():
    assert flatten({"a": {"b": [1, {"c": None}]}, "d": {}, "e": "x: y"}) == {
        "a.b[0]": "1", "a.b[1].c": "null", "d": "{}", "e": '"x: y"'}  # fmt: skip


def test_where_a_report_cannot_go(synthetic_run, tmp_path):
    run = synthetic_run(steps=20)
    with pytest.raises(UserError, match="folder"):
        write_report(run, tmp_path)
    with pytest.raises(RunError):
        write_report(RunDirectory(tmp_path / "nothing"))
    assert write_report(run, tmp_path / "deep" / "page.html").exists()


def test_a_torn_record_still_gives_a_report(synthetic_run):
    run = synthetic_run(steps=60)
    with open(run.events, "a") as file:
        file.write('{"kind": "step", "st')
    EventLog(run.events).close()
    assert write_report(run).exists()


def test_looking_at_a_run_needs_no_torch():
    code = (
        "import sys, coterie.visualise.report, coterie.visualise.plots, coterie.visualise.terminal;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_script_writes_text_and_never_markup():
    script = (files("coterie.visualise") / "report.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", script)


def test_an_auxiliary_loss_that_is_off_is_left_out(synthetic):
    events = [
        event.model_copy(update={"auxiliary": {"balance": 0.0, "z": 0.5}})
        if isinstance(event, StepDone)
        else event
        for event in synthetic(steps=30)
    ]
    text = " ".join(Page(report_page(series_of(events))).text)
    assert " z " in text
    assert " balance " not in text.replace("expert balance", "")
