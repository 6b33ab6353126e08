"""Rhymes are told by sound, eye rhymes and repetitions apart from them, schemes by all pairs."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import UserError
from coterie.language.verse.rhyme import evidence, rhyme
from coterie.language.verse.schemes import form_of, forms, letters_of, likeliest, pairs_of

_SONNET = """\
Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimmed,
And every fair from fair sometime declines,
By chance, or nature's changing course untrimmed:
But thy eternal summer shall not fade,
Nor lose possession of that fair thou ow'st,
Nor shall death brag thou wander'st in his shade,
When in eternal lines to time thou grow'st,
So long as men can breathe, or eyes can see,
So long lives this, and this gives life to thee.""".splitlines()


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("day", "May", "perfect"),
        ("shines", "declines", "perfect"),
        ("ow'st", "grow'st", "perfect"),
        ("pleasure", "measure", "perfect"),
        ("love", "prove", "slant"),
        ("memory", "die", "slant"),
        ("one", "alone", "slant"),
        ("cough", "bough", "eye"),
        ("love", "love", "identical"),
        ("Love,", "love", "identical"),
        ("their", "there", "identical"),
        ("light", "delight", "identical"),
        ("month", "twelvemonth", "identical"),
        ("light", "flight", "perfect"),
        ("day", "night", "none"),
    ],
)
def test_kinds_of_rhyme(first, second, kind):
    first = first.strip(",")
    assert rhyme(first, second).kind == kind
    assert rhyme(second, first).kind == kind


def test_nearer_ends_are_never_worse_evidence():
    weights = [evidence(step / 50) for step in range(60)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 3
    assert weights[-1] < -3


def test_a_sonnet_has_its_form_and_its_letters():
    sonnets = [form for form in forms().values() if len(form.letters) == 14]
    form, support = likeliest(_SONNET, sonnets)
    assert form.name == "sonnet-shakespearean"
    assert support > 20
    assert "".join(letters_of(_SONNET[4:])) == "ABABCDCDEE"


def test_no_word_rhymes_with_itself():
    assert "".join(letters_of(["my love", "your love", "a dove", "a star"])) == "ABAC"


def test_forms_are_named_or_spelled():
    assert form_of("Rhyme Royal").letters == "ABABBCC"
    assert pairs_of(form_of("ABBA").letters) == [(1, 2), (0, 3)]
    with pytest.raises(UserError, match="limerick"):
        form_of("limmerick")
    with pytest.raises(UserError, match="3 lines"):
        likeliest(["a", "b", "c"], [form_of("AABB")])
