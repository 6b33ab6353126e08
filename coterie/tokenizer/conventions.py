"""How a model that came from elsewhere marks its texts; a tokenizer.json does not say it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from coterie.tokenizer.special import END_OF_TEXT

_ALWAYS = ("ends", "begin", "chat_template")  # written even where they are the default


@dataclass(frozen=True)
class Conventions:
    """What stands beside the rules of a tokenizer.

    Attributes:
        ends: the tokens that end a text, the one that separates documents first.
        begin: the token that begins every text.
        chat_template: how a conversation is written, a Jinja template.
        close: the token that is put after every text, if its makers' tokenizer does so.
        eos: the one of `ends` that its makers call so, where that is not the first.
        rows: how many tokens the model knows, where the tokenizer has more.
        config: entries of a tokenizer_config.json that are passed on unchanged.
    """

    ends: tuple[str, ...] = (END_OF_TEXT,)
    begin: str | None = None
    chat_template: str | None = None
    close: str | None = None
    eos: str | None = None
    rows: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> "Conventions":
        """Return what `to_json` described."""
        names = [each.name for each in fields(cls) if each.name in description]
        given: dict[str, Any] = {name: description[name] for name in names}
        given["ends"] = tuple(given["ends"])
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """Return a description; what is as usual is left out of it."""
        values, usual = asdict(self), asdict(Conventions())
        return {k: v for k, v in values.items() if k in _ALWAYS or v != usual[k]}

    @property
    def cleans_up(self) -> bool:
        """Whether blanks before punctuation are taken out of decoded text."""
        return self.config.get("clean_up_tokenization_spaces") is True

    @property
    def splits_special(self) -> bool:
        """Whether special tokens that are written out in a text are plain text."""
        return self.config.get("split_special_tokens") is True
