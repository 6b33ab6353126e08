"""Syntax: whether a text is a program, or data, as a parser of the language sees it."""

import ast
import json
import warnings
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each

_PARTLY = 0.5  # what a text gets at most that is not valid


class Syntax(RewardSettings):
    """1 for valid text; else up to 0.5, by how far a parser comes before the first error."""

    kind: Literal["syntax"] = "syntax"
    language: Literal["python", "json"] = Field(default="python", description="whose grammar holds")
    whole: bool = Field(default=True, description="judge prompt and text together")

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return 1 or the part of the text before its first error, halved."""
        text = sample.prompt + sample.text if self.whole else sample.text
        if not text.strip():
            return 0.0
        at = _ERRORS[self.language](text)
        return 1.0 if at is None else _PARTLY * min(at / len(text), 1.0)


def _python_error(text: str) -> int | None:
    """Return how many characters stand before the line of the first error; None: there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(text)
    except SyntaxError as error:
        lines = text.splitlines(keepends=True)
        return sum(map(len, lines[: (error.lineno or 1) - 1]))
    except (ValueError, RecursionError, MemoryError):  # a null byte; nested beyond the parser
        return 0
    return None


def _json_error(text: str) -> int | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos
    except RecursionError:
        return 0
    return None


_ERRORS: dict[str, Callable[[str], int | None]] = {"python": _python_error, "json": _json_error}
