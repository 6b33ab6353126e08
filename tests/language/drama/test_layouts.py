"""Numbers of headings; the floor needs nothing installed."""

import ast
import sys
from pathlib import Path

import pytest

import coterie.language
from coterie.language.drama.layouts import roman


@pytest.mark.parametrize(
    ("number", "numeral"), [(1, "I"), (4, "IV"), (99, "XCIX"), (126, "CXXVI"), (154, "CLIV")]
)
def test_roman_numerals(number: int, numeral: str) -> None:
    assert roman(number) == numeral


def test_language_needs_nothing_but_the_standard_library() -> None:
    for path in Path(next(iter(coterie.language.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top == "coterie" or top in sys.stdlib_module_names, (path, name)
