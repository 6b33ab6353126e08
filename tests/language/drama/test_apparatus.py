"""The three known wrappings come off, and what came off is returned."""

import pytest

from coterie.language.drama.apparatus import numbered, strip_apparatus

MODERN = (
    "The Project Gutenberg eBook of Hamlet\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK HAMLET ***\n"
    "Who's there?\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK HAMLET ***\nterms\n"
)
NINETIES = (
    "***The Project Gutenberg Etext of Hamlet***\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS\nterms\n*END*Ver.04.29.93*END*\n"
    "Who's there?\n"
    "End of Project Gutenberg Etext of Hamlet\n"
)
WORLD_LIBRARY = (
    "Who's\n<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS\nterms>>\n"
    " there?\n<<THIS ELECTRONIC VERSION again, terms>>\n"
)


@pytest.mark.parametrize(
    ("text", "left", "pieces"),
    [
        (MODERN, "Who's there?\n", 2),
        (NINETIES, "Who's there?\n", 2),
        (WORLD_LIBRARY, "Who's\n there?\n", 2),
        ("Who's there?\n", "Who's there?\n", 0),
    ],
)
def test_the_wrapping_comes_off(text: str, left: str, pieces: int) -> None:
    stripped, removed = strip_apparatus(text)
    assert "".join(line + "\n" for _, line in numbered(stripped)) == left
    assert [text.split("\n")[number - 1].strip() for number, line in numbered(stripped)] == [
        line.strip() for _, line in numbered(stripped)
    ]
    assert len(removed) == pieces
    assert sum(len(piece.text) for piece in removed) + len(left) == len(text)
