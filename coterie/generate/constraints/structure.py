"""Plays and poems in tags that open, nest and close, whatever the model would rather write.

`language.drama.writing` says which lines may come next; each line is a small grammar of its own, so
that what was written may decide about the next one: who is on the stage, which scene is due.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.constraints.interface import ConstraintSettings
from coterie.generate.constraints.matcher import literal, masked, matcher_of
from coterie.language.drama.writing import Free, Name, Part, Place, Shape, Writable, begin
from coterie.tokenizer.interface import Tokenizer

Bounds = tuple[int, int | None]


class Structure(ConstraintSettings):
    """A tagged play or poem: well-formed, with as much of everything as is asked for."""

    alone = "form"

    kind: Literal["structure"] = "structure"
    form: Literal["drama"] = Field(default="drama", description="plays and poems in tags")
    acts: int | None = Field(default=None, ge=1, le=99, description="how many acts, exactly")
    scenes: int | None = Field(default=None, ge=1, le=99, description="how many scenes an act has")
    speeches: Bounds = Field(default=(1, None), description="fewest and most of a scene")
    lines: Bounds = Field(default=(1, None), description="fewest and most of a speech or a part")
    width: int = Field(
        default=100, ge=8, le=1000, description="most bytes of a line beside its marks"
    )
    cast: tuple[str, ...] | None = Field(
        default=None, description="who may speak, while on the stage; by default anybody"
    )

    @field_validator("speeches", "lines", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("speeches", "lines")
    @classmethod
    def _in_order(cls, value: Bounds) -> Bounds:
        if value[0] < 1 or (value[1] is not None and value[1] < value[0]):
            raise ValueError(f"expected [fewest, most] from 1 on, got {list(value)}")
        return value

    @field_validator("cast", mode="before")
    @classmethod
    def _one_of_cast(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("cast")
    @classmethod
    def _somebody(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError("a cast of none can say nothing; leave it out for anybody")
        for name in value or ():
            if name != name.strip() or not name or not name.isprintable() or set(name) & set("<>"):
                raise ValueError(f"“{name}” is no name of a person")
        return value

    def build(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> "StructuredText":
        """Return the constraint of one text; its prompt is the document's beginning.

        Raises:
            UserError: the prompt breaks the grammar of tags, or the tokenizer cannot write it.
        """
        shape = Shape(self.acts, self.scenes, self.speeches, self.lines, self.width, self.cast)
        ends = tokenizer.ends
        begun = max((at for at, token in enumerate(prompt) if token in ends), default=-1) + 1
        text = tokenizer.decode(prompt[begun:])
        try:
            place, rest = begin(text, shape)
        except ValueError as error:
            raise UserError(
                f"structure=drama: the prompt is no beginning of a tagged text: {error}",
                hint="Begin with a mark such as “<SPEAKER>ROMEO</SPEAKER>”, or with nothing.",
            ) from None
        written = StructuredText(tokenizer, place)
        for token in tokenizer.encode(rest):
            if not written.admits(token):
                raise UserError(
                    f"structure=drama: the prompt's last line, “{rest}”, cannot stand there.",
                    hint=f"There may be: {_shown(place)}",
                )
            written.accept(token)
        return written


class StructuredText:
    """One text in the making: the place, and the grammar of the running line."""

    def __init__(self, tokenizer: Tokenizer, place: Place) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._places = [(0, place)]  # where each line began
        self._line: Any = None  # the matcher of the running line, made when it is asked for

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits, −∞ for each token that would break the structure."""
        begun, place = self._places[-1]
        matcher = self._matcher()
        ends = [end for end in self._tokenizer.ends if end < len(logits)]
        if matcher is None:
            kept = torch.full_like(logits, -torch.inf)
        else:
            kept = self._within(masked(matcher, logits), place, begun)
        may_end = begun == len(self._tokens) and place.may_end
        kept[ends] = logits[ends] if may_end else -torch.inf
        return kept

    def _within(self, kept: Float[Tensor, " V"], place: Place, begun: int) -> Float[Tensor, " V"]:
        """Return logits without what would make the line too long, if it can end otherwise."""
        room = place.room(self._tokenizer.decode(self._tokens[begun:]))
        sizes = _sizes(self._tokenizer)
        if room >= int(sizes.max()):
            return kept
        short = kept.clone()
        short[: len(sizes)].masked_fill_(sizes.to(kept.device) > room, -torch.inf)
        return short if bool(torch.isfinite(short).any()) else kept

    def admits(self, token: int) -> bool:
        """Whether a token may come next."""
        logits = torch.zeros(self._tokenizer.vocab_size)
        return bool(torch.isfinite(self.mask(logits)[token]))

    def accept(self, token: int) -> None:
        self._matcher()
        self._tokens.append(token)
        if token in self._tokenizer.ends:
            return
        if self._line is not None:
            self._line.consume_token(token)
        if self._tokenizer.token_bytes(token).endswith(b"\n"):
            begun, place = self._places[-1]
            line = self._tokenizer.decode(self._tokens[begun:]).removesuffix("\n")
            self._places.append((len(self._tokens), place.after(line)))
            self._line = None

    def rollback(self, count: int) -> None:
        if not count:
            return
        del self._tokens[-count:]
        while self._places[-1][0] > len(self._tokens):
            self._places.pop()
        self._line = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "StructuredText":
        other = StructuredText(self._tokenizer, self._places[0][1])
        other._tokens, other._places = list(self._tokens), list(self._places)
        other._line = None if self._line is None else self._line.deep_copy()
        return other

    def _matcher(self) -> Any:
        """Return the matcher of the running line; None: no further line may be written."""
        begun, place = self._places[-1]
        if self._line is None:
            lines = place.next_lines()
            if lines:
                self._line = matcher_of(self._tokenizer, _grammar(lines, self._tokenizer))
                self._line.consume_tokens(self._tokens[begun:])
        return self._line


@functools.lru_cache(maxsize=4)
def _sizes(tokenizer: Tokenizer) -> Tensor:
    """Return how much room each token takes, int64 [V]: none where it ends words.

    After a blank something must follow, and so it may after what is not ASCII: the rest of a
    character, or what a combining mark needs.
    """
    special = set(tokenizer.special_tokens.values())
    sizes = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token)
        size = len(text) + text.endswith(b" ") + 4 * (not text.isascii())
        sizes.append(0 if token in special or text.startswith((b"\n", b"<")) else size)
    return torch.tensor(sizes)


def _grammar(lines: Sequence[Writable], tokenizer: Tokenizer) -> str:
    """Return the grammar of a line that is one of several."""
    terminals: dict[str, str] = {}
    special = tokenizer.special_tokens
    ways = [" ".join(_part(part, special, terminals) for part in line) for line in lines]
    rules = [f"{name}: {body}" for body, name in terminals.items()]
    return "\n".join(["start: " + " | ".join(ways), *rules])


def _part(part: Part, special: Mapping[str, int], terminals: dict[str, str]) -> str:
    if isinstance(part, str):
        return literal(part, special)
    if isinstance(part, Free):
        body = f"/{part.pattern}/"
        if part.without:
            body += f" & ~/(?s:.*)(?:{part.without})(?s:.*)/"
        return terminals.setdefault(body, f"FREE_{len(terminals)}")
    names = "(" + " | ".join(json.dumps(name, ensure_ascii=False) for name in part.of) + ")"
    return f'{names} ((", " {names})* " and " {names})?' if part.several else names


def _shown(place: Place) -> str:
    """Return which lines may stand at a place, for people."""
    shown = []
    for line in place.next_lines():
        parts = [part if isinstance(part, str) else
                 "|".join(part.of) if isinstance(part, Name) else "…" for part in line]  # fmt: skip
        shown.append("".join(parts).strip() or "an empty line")
    return ", ".join(shown)
