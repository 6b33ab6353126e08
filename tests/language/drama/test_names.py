"""Speakers of the First Folio's layout, where a name, a number and the words run together."""

from coterie.language.drama.cleaning import clean_text
from coterie.language.drama.names import find_names

FOLIO = """The Tragedie

Actus Primus. Scoena Prima.

Enter Macbeth and Banquo.

  Macb. So foule and faire a day I haue not seene

   Banq. How farre is't call'd to Soris? What are these,
So wither'd, and so wilde in their attyre
  Macb. Speake if you can: what are you?
  Banq. Good Sir, why doe you start

   1 Hayle to thee
   2 True: and more
   1 Lord. And I
  Macb. Stay you imperfect Speakers
  Macb. The Prince of Cumberland: that is a step
  Banq. Good Sir, againe

Flourish. Enter Lady.

Flourish. Enter a Drum.

Flourish. Exeunt.
"""


def speakers(text: str) -> list[tuple[str, str]]:
    found = find_names(list(enumerate(text.split("\n"), start=1))).speakers
    return [(speaker.name, speaker.words) for _, speaker in sorted(found.items())]


def test_a_known_name_does_not_take_the_words_after_it() -> None:
    assert ("Macb", "The Prince of Cumberland: that is a step") in speakers(FOLIO)


def test_numbers_speak_and_signals_do_not() -> None:
    found = speakers(FOLIO)
    assert ("1", "Hayle to thee") in found
    assert ("1 Lord", "And I") in found
    assert not any(name == "Flourish" for name, _ in found)
    directions = clean_text(FOLIO).text.count("<STAGE>Flourish.")
    assert directions == 3


def test_a_name_that_often_begins_lines_need_not_be_set_in() -> None:
    often = FOLIO + "\n  Macb. Who's there?\nAemil. 'Tis I\n" * 8
    assert speakers(often).count(("Aemil", "'Tis I")) == 8
    seldom = FOLIO + "\n  Macb. Who's there?\nAemil. 'Tis I\n" * 7
    assert not any(name == "Aemil" for name, _ in speakers(seldom))
