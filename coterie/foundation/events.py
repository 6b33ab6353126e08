"""What an event is, and which kinds there are.

Each floor declares its kinds beside the code that publishes them, and so may any other package: a
class that derives `Event` and has a `kind` is registered by being defined. Here is only what all
floors share. `event_log` writes events to a file and reads them back.
"""

import math
import re
import time
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from coterie.foundation.printable import printable

_LARGEST = 1e60  # far beyond what float32 can compute; sums and charts still have room above
_KIND = r"^[A-Za-z][A-Za-z0-9_.:]{0,99}$"

_kinds: "dict[str, type[Event]]" = {}
_adapter: TypeAdapter[Any] | None = None  # of all kinds; made when a line is next read


def _sensible(value: float) -> float:
    if math.isfinite(value) and abs(value) > _LARGEST:
        raise ValueError("no computation here leads to a number of this size")
    return value


Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, AfterValidator(_sensible)]


class Event(BaseModel):
    """Base of all events. `time` is in seconds since the epoch.

    A kind is a subclass with a field such as `kind: Literal["step"] = "step"`. Outside this package
    a kind is named by its import path, `"my_lab.events:Thing"`, which no other package can take.

    Two field names mean the same in every kind: `step`, the optimizer steps done when the event
    happened, and `resumed_from`, which says that all earlier events beyond that step are void,
    because those steps are done again.
    """

    # A gradient norm may be infinite and must still be recorded; fields added by a newer version
    # are ignored so that an older report reads a newer run.
    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="strings", protected_namespaces=()
    )

    time: Number = Field(default_factory=time.time)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        field = cls.model_fields.get("kind")
        if field is not None and field.annotation is not str:
            _register(cls, field.default, get_args(field.annotation))

    def numbers(self) -> dict[str, float]:
        """Return what trackers plot, under slash-separated names; most kinds have nothing."""
        return {}


def _register(kind: type[Event], name: str, literals: tuple[Any, ...]) -> None:
    """Make a kind known to every reader of logs.

    Raises:
        TypeError: its `kind` is badly formed, or belongs to another class.
    """
    global _adapter
    if literals != (name,) or not re.match(_KIND, name):
        raise TypeError(
            f"{kind.__name__} needs a field such as `kind: Literal[TEXT] = TEXT`, "
            f"where TEXT is {kind.__module__ + ':' + kind.__name__!r}."
        )
    known = _kinds.get(name, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} cannot have the kind {name!r}: "
            f"{known.__module__}.{known.__qualname__} has it."
        )
    _kinds[name] = kind  # a class defined once more, as in a notebook, replaces itself
    _adapter = None


class Unknown(Event):
    """An event of a kind that no imported module declares; its fields are kept as JSON values."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(pattern=_KIND)


class Notice(Event):
    """Something the reader should know."""

    kind: Literal["notice"] = "notice"
    level: Literal["info", "warning"] = "info"
    message: str


class SkippedLine(Event):
    """Stands for a line of a log that cannot be read: its number, from 1, and what is wrong."""

    kind: Literal["skipped_line"] = "skipped_line"
    number: int
    reason: str


class LogRestarted(Event):
    """Stands for the moment when a log that is being followed begins again from nothing."""

    kind: Literal["log_restarted"] = "log_restarted"
    reason: Literal["truncated", "replaced"]


_UNKNOWN = TypeAdapter(Unknown)


def parse_event(line: bytes) -> Event:
    """Return the event in one line of JSON, as `Unknown` where nothing declares its kind.

    Raises:
        ValueError: the line is not JSON, has no kind, or a field does not fit its kind. The message
            says which, in a few printable words.
    """
    global _adapter
    if _adapter is None:
        members: Any = Union[tuple(_kinds.values())]  # noqa: UP007 - made of what is registered
        union: Any = Annotated[members, Field(discriminator="kind")]  # pyright: ignore
        _adapter = TypeAdapter(union)
    try:
        return _adapter.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] != "union_tag_invalid":
            raise ValueError(_reason(first, first["loc"][1:])) from error  # the kind comes first
    try:
        return _UNKNOWN.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(_reason(first, first["loc"])) from error


def _reason(error: ErrorDetails, where: tuple[int | str, ...]) -> str:
    about = error.get("ctx", {})
    if error["type"] == "json_invalid":
        return printable(f"it is not JSON ({about.get('error')})", keep="")
    if where == ("kind",):
        return printable(
            f"its kind “{str(error['input'])[:60]}” is not the name of a kind", keep=""
        )
    message = error["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, where)) or "the whole"
    return printable(f"{place}: {message[:1].lower() + message[1:]}", keep="")


def step_of(event: Event) -> int:
    """Return the optimizer steps done when an event happened; 0 where it does not say."""
    return _whole(event, "step") or 0


def resumed_from(event: Event) -> int | None:
    """Return the step beyond which all earlier events are void; None where all stand."""
    return _whole(event, "resumed_from")


def _whole(event: Event, name: str) -> int | None:
    value = getattr(event, name, None)
    return value if isinstance(value, int) and value >= 0 else None
