"""Verse from Python: lines with their stresses, and what can be measured about a poem or a play.

from coterie.api.verse import score, scan_text
for number, line, scan in scan_text(poem):
    print(scan.pattern, scan.cost, line)
"""

import re
from collections.abc import Iterable
from typing import Any

from coterie.language.drama.tags import check_tagged
from coterie.language.verse.marks import marked
from coterie.language.verse.metres import metres
from coterie.language.verse.rhyme import rhyme
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import forms
from coterie.language.verse.score import scan_text, stanzas
from coterie.language.verse.score import score as score_words

__all__ = ["forms", "marked", "metres", "rhyme", "scan", "scan_text", "score", "stanzas"]

_TAGS = re.compile(r"</?(?:PLAY|POEM|ACT|SCENE|PART|SPEAKER|STAGE)>")


def score(
    text: str,
    metre: str = "iambic-pentameter",
    form: str | None = None,
    training: str | Iterable[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what can be measured about verse, by area: metre, rhyme, words, structure, copying.

    Args:
        text: plain, or with the tags of plays, whose grammar is then judged as well.
        metre: a name of `metres()`.
        form: a name of `forms()` or letters such as "ABABCC"; without one, rhymes are looked for.
        training: a text that may have been copied from, or several.

    Raises:
        UserError: there is no such metre or form.
    """
    found = score_words(text, metre, form, training)
    if _TAGS.search(text):
        problems = check_tagged(text)
        found["structure"] = {"well_formed": not problems, "problems": list(problems)}
    return found
