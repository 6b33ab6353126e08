"""Two models beside each other: who wins, how sure that is, and a sheet that names nobody."""

from dataclasses import replace

import pytest

from coterie.align.contest import Contest, Side, blind_sheet, contest, wilson
from coterie.align.methods import method_of
from coterie.align.rewards import Sample
from coterie.api.alignment import aligned
from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer


def side(word, totals):
    samples = [Sample(f"line {n}\n", f"{word} {n}\n") for n in range(len(totals))]
    return Side(samples, totals, {})


def test_matches_are_counted_and_even_ones_halved():
    found = Contest(side("a", [1.0, 0.5, 0.2, 0.7]), side("b", [0.0, 0.5, 0.9, 0.1]))
    assert found.wins == (2, 1, 1)
    assert found.win_rate[0] == 0.625


def test_the_interval_is_wilsons():
    share, low, high = wilson(8, 10)  # as in tables of it: 0.4902 to 0.9433
    assert share == 0.8
    assert low == pytest.approx(0.4902, abs=5e-5)
    assert high == pytest.approx(0.9433, abs=5e-5)
    assert wilson(0, 10)[1] == 0.0
    assert wilson(10, 10)[2] == pytest.approx(1.0)


def test_a_blind_sheet_says_who_wrote_what_in_its_key_alone():
    found = Contest(side("sea", [1.0] * 40), side("sky", [0.0] * 40))
    sheet, key = blind_sheet(found, 30, seed=3)
    assert (sheet, key) == blind_sheet(found, 30, seed=3)
    assert sheet.count("A [ ]   B [ ]") == 30
    assert "first" not in sheet
    rows = [row.split("\t") for row in key.splitlines()[1:]]
    assert {row[1] for row in rows} == {"first", "second"}, "sides are drawn"
    for number, one, _ in rows:
        block = sheet.split(f"\n{number}.  A [ ]")[1].split("  B:\n")[0]
        assert ("sea" in block) == (one == "first")


@pytest.fixture
def judged_by(tmp_path):
    """Return a contest over three prompts."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("2 times\n3 times\nsaid\n")

    def judge(base, other, kind):
        said = {"rewards": [{"kind": kind}], "rollout": {"max_tokens": 6}}
        said |= {"prompts": str(prompts), "held_out": str(prompts)}
        settings = aligned("rejection", base, said, [Layer("test", {"train": {"device": "cpu"}})])
        method = method_of(settings, None)
        return contest(base, other, method, method.prepare(settings, lambda said: None)[1])

    return judge


def test_fluency_is_told_by_what_either_was_tuned_from(base, judged_by):
    tuned = replace(base, settings=base.settings | {"align": {"base": str(base.path)}})
    found = judged_by(base, tuned, "fluency")
    assert found.wins == (0, 0, 3)
    assert found.one.totals == pytest.approx([each.reference for each in found.one.samples])
    assert found.one.figures["reference_nats"] > 0
    assert "reference_nats" not in judged_by(base, tuned, "repetition").one.figures


def test_without_a_frozen_start_fluency_is_refused_with_the_ways_on(base, judged_by):
    with pytest.raises(SettingsError, match="neither run was tuned from one") as refused:
        judged_by(base, base, "fluency")
    assert "--reward metre" in refused.value.hint
    gone = replace(base, settings=base.settings | {"align": {"base": "/nowhere"}})
    with pytest.raises(SettingsError, match=r"that is still there \(/nowhere\)"):
        judged_by(base, gone, "fluency")
