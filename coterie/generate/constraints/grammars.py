"""Texts that fit a grammar, a regular expression, a JSON schema, or one of several choices.

They hold what is written, from its first token to the end of the text; the prompt stands before.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from coterie.foundation.errors import UserError, require
from coterie.generate.constraints.interface import ConstraintSettings
from coterie.generate.constraints.matcher import Grammatical, matcher_of
from coterie.tokenizer.interface import Tokenizer


class _ByGrammar(ConstraintSettings):
    def _grammar(self, known: Any) -> str:
        """Return it in `llguidance`'s notation, whose matcher is `known`.

        Raises:
            ValueError: it is malformed.
        """
        raise NotImplementedError

    def build(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> Grammatical:
        """Return the constraint.

        Raises:
            UserError: it is malformed, with the place, or `llguidance` is not installed.
        """
        grammar = require("llguidance", "grammar").LLMatcher
        try:
            return Grammatical(matcher_of(tokenizer, self._grammar(grammar)), tokenizer.ends)
        except ValueError as error:
            name = type(self).model_fields["kind"].default
            hint = "Nothing was written; mend it and try again."
            raise UserError(f"{name}: {error}", hint=hint) from error


def _read(file: str) -> str:
    try:
        return Path(file).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


class Grammar(_ByGrammar):
    """A text that a context-free grammar fits, in Lark's notation as `llguidance` reads it."""

    alone = "file"

    kind: Literal["grammar"] = "grammar"
    file: str | None = Field(default=None, description="a file with the grammar")
    text: str | None = Field(default=None, description="the grammar itself; it begins at `start`")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Grammar":
        if (self.file is None) == (self.text is None):
            raise ValueError("name the grammar's file, or give its text")
        return self

    def _grammar(self, known: Any) -> str:
        text = _read(self.file) if self.file is not None else self.text
        return known.grammar_from_lark(text)


class Regex(_ByGrammar):
    """A text that a regular expression fits as a whole; without references and look-around."""

    alone = "pattern"

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, description="in the notation of Rust's `regex`")

    def _grammar(self, known: Any) -> str:
        return known.grammar_from_regex(self.pattern)


class JsonSchema(_ByGrammar):
    """JSON that a schema describes."""

    alone = "file"

    kind: Literal["json_schema"] = "json_schema"
    file: str | None = Field(default=None, description="a file with the schema")
    schema_: dict[str, JsonValue] | None = Field(
        default=None, alias="schema", description="the schema itself"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "JsonSchema":
        if (self.file is None) == (self.schema_ is None):
            raise ValueError("name the schema's file, or give the schema")
        return self

    def _grammar(self, known: Any) -> str:
        given: Any = self.schema_
        if self.file is not None:
            try:
                given = json.loads(_read(self.file))
            except json.JSONDecodeError as error:
                raise ValueError(f"{self.file} is no JSON: {error}") from error
        return known.grammar_from_json_schema(given)


class Choices(_ByGrammar):
    """One of several texts."""

    kind: Literal["choices"] = "choices"
    texts: tuple[str, ...] = Field(min_length=1, description="what may be written")

    @model_validator(mode="before")
    @classmethod
    def _texts_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        return {"texts": value} if isinstance(value, list | tuple) else value

    def _grammar(self, known: Any) -> str:
        if "" in self.texts:
            raise ValueError("an empty text is no choice")
        texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in self.texts)
        return known.grammar_from_lark(f"start: {texts}")
