"""The table goes both ways, and respelling keeps lines, capitals, marks and headings."""

from __future__ import annotations

import re

from coterie.language.spelling import respell, respellings, spellings


def test_every_archaic_form_stands_for_one_word() -> None:
    forms = [(form, word) for word, forms in spellings().items() for form in forms if form != word]
    assert len(forms) == len(respellings("modern")) > 5_000
    modern = respellings("modern")
    assert all(modern[form] == word for word, form in respellings("archaic").items())
    assert not set(modern) & set(modern.values())


def test_texts_are_respelled_in_either_direction() -> None:
    folio = "Giue me your hands, if we be friends:\nAnd Robin shall restore amends. VPON, Ile haue"
    modern = respell(folio, "modern")
    assert modern.startswith("Give me your hands, if we be friends:\n")
    assert modern.endswith("UPON, I'll have")
    assert respell(modern, "archaic") == folio
    assert respell(modern, "modern") == modern


def test_marks_and_headings_stay() -> None:
    text = (
        "<ACT>I</ACT>\n<SCENE>EPILOGVE</SCENE>\n<SPEAKER>IOHN</SPEAKER>\n"
        "<STAGE>Aside</STAGE> I haue\n"
    )
    new = respell(text, "modern")
    assert new == text.replace("IOHN", "JOHN").replace("haue", "have")
    assert re.findall(r"</?[A-Z]+>", new) == re.findall(r"</?[A-Z]+>", text)
