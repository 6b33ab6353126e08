"""Charts draw what they are given: paths can be read back, labels do not collide."""

import base64
import re
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest

from coterie.visualise.axis import Axis
from coterie.visualise.charts import Chart, Line, path, spread
from coterie.visualise.pixels import COOL, WARM, levels_of_share, picture


def read_back(d: str) -> list[tuple[int, int]]:
    """Read a path as the page's script does: absolute M, relative l."""
    found, x, y = [], 0, 0
    for letter, rest in re.findall(r"([Ml])([^Ml]*)", d):
        values = [int(v) for v in re.findall(r"-?\d+", rest)]
        for dx, dy in zip(values[::2], values[1::2], strict=True):
            x, y = (dx, dy) if letter == "M" else (x + dx, y + dy)
            found.append((x, y))
    return found


def test_a_path_can_be_read_back():
    rng = np.random.default_rng(1)
    x, y = np.arange(300.0), rng.random(300)
    points = read_back(path(x, y, Axis(0, 299), Axis(0, 1)))
    assert len(points) == 300
    assert np.allclose([p[0] / 1e4 * 299 for p in points], x, atol=0.02)
    assert np.allclose([1 - p[1] / 1e4 for p in points], y, atol=1e-4)


def test_a_gap_breaks_the_path():
    d = path(np.arange(5.0), np.array([1, 2, np.nan, 4, 5.0]), Axis(0, 4), Axis(0, 5))
    assert d.count("M") == 2
    assert len(read_back(d)) == 4


@pytest.mark.parametrize("places", [[50, 51, 52], [0, 0, 0, 0], [310, 311, 312], [5, 100, 101]])
def test_labels_are_moved_apart_within_the_chart(places):
    moved = spread(places, 34, 312)
    assert min(moved) >= 0
    assert max(moved) <= 312
    assert all(b - a >= 34 - 1e-9 for a, b in pairwise(moved))


def test_a_chart_says_in_words_what_it_shows():
    html = Chart("Loss", "nats", [Line("training", np.arange(3), np.array([4.0, 2.0, 3.0]))]).html()
    assert 'role="img"' in html
    assert "training goes from 4.00 at 0 to 3.00 at 2" in html
    assert "lowest 2.00" in html


def test_nothing_to_draw_is_nothing():
    assert Chart("Loss", "nats", []).html() == ""
    assert Chart("Loss", "nats", [Line("x", np.arange(2), np.array([np.nan, np.inf]))]).html() == ""


def test_a_single_point_is_a_dot_at_the_end_of_its_level():
    html = Chart("Loss", "nats", [Line("x", np.array([20]), np.array([1.0]))]).html()
    assert 'data-x="0.0,20.0"' in html
    assert re.findall(r'class="dots"[^>]* d="M(\d+) (\d+)h0"', html) == [("10000", "5000")]
    (level,) = re.findall(r'class="faint"[^>]* d="([^"]+)"', html)
    assert read_back(level) == [(0, 5000), (10_000, 5000)]


def test_steps_have_no_marks_between_them():
    x = np.array([0, 1, 2])
    html = Chart("Loss", "nats", [Line("x", x, np.array([3.0, 2.0, 1.0]))], wide=True).html()
    assert re.findall(r'x-tick"[^>]*>([^<]+)<', html) == ["0", "1", "2"]


def test_names_are_escaped_everywhere():
    name = '"><script>alert(1)</script>'
    line = Line(name, np.arange(3), np.arange(3.0))
    html = Chart(name, name, [line], name, marks=[(1, name)], note=name).html()
    assert "<script" not in html
    assert '"><' not in html.replace('"><b', "").replace('"><i', "").replace('"><path', "").replace(
        '"><span', "").replace('"><svg', "").replace('"><figcaption', "")  # fmt: skip


def test_a_picture_is_a_png_whose_colours_mean_more_or_less():
    share = np.array([[0.0, 1.0, 2.0], [0.5, 1.0, 9.0]])
    data = base64.b64decode(picture(levels_of_share(share)).partition(",")[2])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, position = {}, 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (3, 2)
    rows = zlib.decompress(chunks[b"IDAT"])
    pixels = [list(rows[1:4]), list(rows[5:8])]
    alpha = [[chunks[b"tRNS"][p] for p in row] for row in pixels]
    colour = [[tuple(chunks[b"PLTE"][3 * p : 3 * p + 3]) for p in row] for row in pixels]
    assert alpha == [[255, 0, 255], [255, 0, 255]]
    assert colour[0][0] == COOL
    assert colour[0][2] == WARM
