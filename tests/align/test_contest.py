"""Two models beside each other: who wins, how sure that is, and a sheet that names nobody."""

import pytest

from coterie.align.contest import Contest, Side, blind_sheet, wilson
from coterie.align.rewards import Sample


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
