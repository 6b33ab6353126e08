"""How texts are drawn: every sampling setting, and what follows from the values alone."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from coterie.foundation.settings import Settings
from coterie.generate.beams.settings import BeamSettings
from coterie.generate.cache import CacheSettings, FullCacheSettings
from coterie.generate.constraints import (
    Choices,
    ConstraintSettings,
    ConstraintUnion,
    Grammar,
    JsonSchema,
    Regex,
    Structure,
    Verse,
)
from coterie.generate.passes import Compute
from coterie.generate.speculation import NoSpeculation, Speculation

StepName = Literal["penalties", "temperature", "top_k", "top_p", "min_p", "typical_p"]
"""The steps from logits to the distribution that is drawn from."""

ORDER: tuple[StepName, ...] = get_args(StepName)
"""The steps in the order of transformers and vLLM."""

OF_DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "order", "seed",
              "logprobs_mode", "speculation", "best_of")  # fmt: skip
"""Settings that have no say where texts are searched for instead of drawn."""

IN_SHORT = ("form", "metre", "rhyme")
"""Settings of verse that may stand without `verse.` before them."""

LogprobsMode = Literal["raw", "processed"]
"""Of which distribution log-probabilities are told: the model's own, or the one drawn from."""


class SamplingSettings(Settings):
    """How a text is drawn from the model's probabilities."""

    temperature: float = Field(
        default=0.8,
        ge=0,
        le=100,
        description="flattens (> 1) or sharpens (< 1); 0 takes the likeliest",
    )
    top_k: int | None = Field(default=None, ge=1, description="keep only the k likeliest tokens")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="keep the fewest tokens that hold this much probability",
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="keep tokens at least this many times as likely as the likeliest",
    )
    typical_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="keep the tokens nearest the expected surprise that hold this much probability",
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=100, description="above 1 makes tokens of the recent past less likely"
    )
    repetition_window: int = Field(
        default=256, ge=1, description="how many of the latest tokens the penalty looks at"
    )
    frequency_penalty: float = Field(
        default=0.0,
        ge=-100,
        le=100,
        description="lowers a token's logit by this for each time it was generated",
    )
    presence_penalty: float = Field(
        default=0.0,
        ge=-100,
        le=100,
        description="lowers a token's logit by this once it was generated",
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default={},
        description="added to the logits of tokens, which are named by number or by their text",
    )
    order: tuple[StepName, ...] = Field(
        default=ORDER, description="in which order the steps are taken, each named once"
    )
    seed: int = Field(default=1337, ge=0, lt=1 << 63, description="of the text's own random stream")
    min_tokens: int = Field(
        default=0, ge=0, description="how many tokens are generated before the text may end"
    )
    max_tokens: int = Field(default=256, ge=1, description="the most tokens to generate")
    stop: tuple[str, ...] = Field(
        default=(), description="texts that end the generation; never shown"
    )
    logprobs: int = Field(
        default=0, ge=0, le=1000, description="how many of the likeliest tokens to tell each time"
    )
    logprobs_mode: LogprobsMode = Field(
        default="raw",
        description="log-probabilities of the model's own distribution, or of the one drawn from",
    )
    best_of: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="how many texts are drawn, of which the one is kept that the model finds "
        "likeliest per token",
    )
    report: bool = Field(default=False, description="tell what constraints did")
    beams: BeamSettings | None = Field(
        default=None, description="search for the likeliest texts instead of drawing one"
    )
    constraints: tuple[ConstraintUnion, ...] = Field(
        default=(), description="what the text may go on with, token by token"
    )
    structure: Structure | None = Field(
        default=None, description="`drama`: a well-formed play or poem in tags"
    )
    verse: Verse | None = Field(default=None, description="a form of verse, such as sonnet")
    form: str | None = Field(default=None, description="short for verse.form")
    metre: str | None = Field(default=None, description="short for verse.metre")
    rhyme: str | None = Field(default=None, description="short for verse.rhyme")
    grammar: Grammar | None = Field(default=None, description="a file with a grammar that it fits")
    json_schema: JsonSchema | None = Field(default=None, description="a file with a JSON schema")
    regex: Regex | None = Field(default=None, description="a regular expression that it fits")
    choices: Choices | None = Field(default=None, description="texts of which it is one")
    speculation: Speculation = Field(
        default=NoSpeculation(), description="how several tokens are guessed and read at once"
    )
    cache: CacheSettings = Field(
        default=FullCacheSettings(), description="what is kept of keys and values between tokens"
    )
    compute: Compute = Field(
        default="auto",
        description="what computes single tokens: torch, torch's compiler, kernels of our own, or "
        "these where they serve and pay",
    )

    @model_validator(mode="before")
    @classmethod
    def _verse_in_short(cls, value: Any) -> Any:
        """Put what is said of verse in short where it belongs."""
        if not isinstance(value, Mapping):
            return value
        said = {name: value[name] for name in IN_SHORT if value.get(name) is not None}
        if not said:
            return value
        verse = value.get("verse") or {}
        verse = {"form": verse} if isinstance(verse, str) else dict(verse)
        for name, short in said.items():
            if verse.get(name) not in (None, short):
                raise ValueError(f"{name}={short} contradicts verse.{name}={verse[name]}")
            verse[name] = short
        return {key: each for key, each in value.items() if key not in said} | {"verse": verse}

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: object) -> object:
        named = isinstance(value, Mapping)
        return {str(token): bias for token, bias in value.items()} if named else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty stop text would end every generation at once")
        return value

    @field_validator("order")
    @classmethod
    def _each_step_once(cls, value: tuple[StepName, ...]) -> tuple[StepName, ...]:
        times = Counter(value)
        wrong = [f"{name} is named {times[name]} times" for name in ORDER if times[name] != 1]
        if wrong:
            raise ValueError(f"every step is to be named once, but {', '.join(wrong)}")
        return value

    @model_validator(mode="after")
    def _ends_after_it_may(self) -> "SamplingSettings":
        if self.max_tokens < self.min_tokens:
            raise ValueError(
                f"the text must end by max_tokens={self.max_tokens} "
                f"but may not before min_tokens={self.min_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _candidates_differ(self) -> "SamplingSettings":
        if self.best_of > 1 and self.greedy:
            raise ValueError(f"temperature=0 gives best_of={self.best_of} times the same text")
        if self.best_of > 1 and self.logprobs_mode != "raw":
            raise ValueError(
                "best_of ranks by the model's own log-probabilities: logprobs_mode=raw"
            )
        return self

    @model_validator(mode="after")
    def _searches_or_draws(self) -> "SamplingSettings":
        if self.beams is None:
            return self
        fields = type(self).model_fields
        wrong = [
            name
            for name in (*OF_DRAWING, "stop", "logprobs", "report")
            if getattr(self, name) != fields[name].default
        ]
        if self.greedy and "temperature" in wrong:  # nothing is drawn then either
            wrong.remove("temperature")
        if wrong:
            raise ValueError(f"a search with beams knows no {' and no '.join(wrong)}")
        return self

    @property
    def limits(self) -> tuple[ConstraintSettings, ...]:
        """All constraints: those that have a key of their own, then the others."""
        verse = self.verse and self.verse.model_copy(update={"tags": self.structure is not None})
        own = (self.structure, verse, self.grammar, self.json_schema, self.regex, self.choices)
        return (*(each for each in own if each is not None), *self.constraints)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken (temperature 0), so that no chance enters."""
        return self.temperature == 0

    @property
    def ruled(self) -> bool:
        """Whether nothing but the logits and chance decides, and nothing further is to be told."""
        neutral = (
            self.repetition_penalty == 1
            and self.frequency_penalty == self.presence_penalty == 0
            and self.typical_p == 1
            and not self.logprobs
            and self.logprobs_mode == "raw"
        )
        ruled = ORDER[1:5]  # from temperature to min_p
        usual = tuple(step for step in self.order if step in ruled) == ruled
        plain = self.temperature == 0 or self.temperature > 0.01
        return neutral and plain and (self.greedy or usual)
