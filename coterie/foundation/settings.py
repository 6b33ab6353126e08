"""Settings: frozen, strict, and open to new variants.

`Settings` is the base of every configuration class. `union` makes a closed union of settings that
are told apart by `kind`; an import path such as `my_lab.routers:Noisy` opens it to outsiders.
Reading settings from presets, files and the command line lives in `foundation.layers`.
"""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from coterie.foundation.errors import nearest
from coterie.foundation.printable import printable

_LARGEST = {int: (1 << 31) - 1, float: 10**15}


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden, defaults validated.

    A settings class validates itself, builds what it configures, and returns what follows from its
    values alone, such as counts of parameters. It holds no state.

    Attributes:
        renamed: keys of earlier versions and what they are called now; errors say so.
        instead: keys that stand for others. A layer that names one where no layer below did drops
            what those below named of the others.
        alone: the key that a text stands for where all of these settings may stand.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    instead: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    alone: ClassVar[str | None] = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @property
    def derived(self) -> frozenset[str]:
        """Names of the fields that follow from others here, and are not written down."""
        return frozenset()

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        return {cls.alone: value} if cls.alone and isinstance(value, str) else value

    @field_validator("*", mode="after")
    @classmethod
    def _sane(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse numbers beyond any model or run where a field has no bound of its own."""
        for number in value if isinstance(value, tuple) else (value,):
            most = _LARGEST.get(type(number))
            if most is not None and abs(number) > most and not _is_bounded(cls, info.field_name):
                raise ValueError(f"larger than any model or run needs: at most {most:,}")
        return value


def _is_bounded(cls: type[Settings], name: str | None) -> bool:
    """Whether a field says itself how large it may be."""
    extra = cls.model_fields[name].metadata if name in cls.model_fields else ()
    return any(hasattr(each, "le") or hasattr(each, "lt") for each in extra)


def kind_of(member: type[Settings]) -> str:
    """Return the `kind` that names a member of a union."""
    return member.model_fields["kind"].default


class union:  # noqa: N801 - reads as a word in annotations
    """Annotation that makes `A | B` a closed union told apart by `kind`.

    Usage: `Norm = Annotated[RMSNorm | LayerNorm, union(RMSNorm, LayerNorm)]`. A mapping is
    validated by the member that its `kind` names. A `kind` with a colon is an import path to a
    `Settings` class from outside the package.

    Args:
        renamed: kinds of earlier versions, each with the values that stand for it now.

    Raises (through pydantic): an unknown `kind` is refused with the nearest valid one.
    """

    def __init__(
        self, *members: type[Settings], renamed: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.members = {kind_of(member): member for member in members}
        self.renamed = renamed or {}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema for editors: a member, its kind alone, or an outsider's path."""
        outside = {"type": "string", "pattern": ":"}
        return {
            "anyOf": [
                *(handler(member.__pydantic_core_schema__) for member in self.members.values()),
                {"enum": list(self.members)},
                {"type": "object", "properties": {"kind": outside}, "required": ["kind"]},
            ]
        }

    def _validate(self, value: Any) -> Settings:
        if isinstance(value, Settings):
            if isinstance(value, tuple(self.members.values())) or _is_outsider(value):
                return value
            raise PydanticCustomError(
                "wrong_union",
                "{name} does not belong here; {phrase}",
                {"name": type(value).__name__, "phrase": nearest("", self.members)},
            )
        if isinstance(value, str):
            value = {"kind": value}  # `norm: rms` is enough where the defaults serve
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "union_mapping",
                "expected a mapping with “kind”, got {got}; {phrase}",
                {"got": shown(value), "phrase": nearest("", self.members)},
            )
        member = self._find(value)
        return member.model_validate(dict(value))

    def _find(self, value: Mapping[str, Any]) -> type[Settings]:
        """Return the member that a mapping asks for by its `kind`."""
        kind = value.get("kind")
        if kind is None and len(self.members) == 1:
            return next(iter(self.members.values()))
        if kind is None:
            raise PydanticCustomError(
                "union_kind_missing", "“kind” is missing; {phrase}",
                {"phrase": nearest("", self.members)},
            )  # fmt: skip
        if isinstance(kind, str) and ":" in kind:
            return _import_member(kind)
        if isinstance(kind, str) and kind in self.renamed:
            now = " ".join(f"{name}={value}" for name, value in self.renamed[kind].items())
            raise PydanticCustomError(
                "union_kind_renamed", "kind “{kind}” is now {now}", {"kind": kind, "now": now}
            )
        if not isinstance(kind, str) or kind not in self.members:
            raise PydanticCustomError(
                "union_kind",
                "there is no kind “{kind}” here; {phrase}",
                {"kind": shown(kind), "phrase": nearest(str(kind), self.members)},
            )
        return self.members[kind]

    def member(self, kind: Any) -> type[Settings] | None:
        """Return the class of a kind, `None` where there is no such.

        Args:
            kind: the kind; None: nobody chose, which leaves a union of one no choice.
        """
        try:
            return self._find({"kind": kind})
        except PydanticCustomError:
            return None


def members(annotation: Any) -> tuple[type[Settings], ...]:
    """Return every member of a union made with `union`, for tests and listings."""
    for extra in get_args(annotation)[1:]:
        if isinstance(extra, union):
            return tuple(extra.members.values())
    raise TypeError(f"{annotation!r} is not a union of settings")


def _dump(value: Settings, info: core_schema.SerializationInfo) -> dict[str, Any]:
    return value.model_dump(
        mode=info.mode,
        exclude_defaults=False,
        exclude_unset=info.exclude_unset,
        exclude_none=info.exclude_none,
    )


def _is_outsider(value: Settings) -> bool:
    return ":" in str(getattr(value, "kind", ""))


def _import_member(path: str) -> type[Settings]:
    """Import `module:Class`, a settings class from outside the package."""
    module_name, _, class_name = path.partition(":")
    try:
        member = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a foreign module may do anything while it loads
        reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        raise PydanticCustomError(
            "union_import", "could not import “{path}”: {reason}",
            {"path": printable(path, ""), "reason": printable(reason, "")},
        ) from error  # fmt: skip
    if not (isinstance(member, type) and issubclass(member, Settings)):
        raise PydanticCustomError(
            "union_import",
            "“{path}” is not a coterie Settings class",
            {"path": printable(path, "")},
        )
    field = member.model_fields.get("kind")
    if field is None or field.annotation is not str:
        raise PydanticCustomError(
            "union_import",
            "“{path}” needs a field `kind: str`, which will hold its import path",
            {"path": printable(path, "")},
        )
    return member


def shown(value: Any, width: int = 60) -> str:
    """Return a value for an error: one line, not longer than `width` characters."""
    if isinstance(value, int) and value.bit_length() > 4000:  # too long for Python to write out
        return f"an integer of about {round(value.bit_length() * 0.30103):,} digits"
    text = printable(value if isinstance(value, str) else repr(value), "")
    return text if len(text) <= width else text[:width] + "…"


__all__ = ["Settings", "ValidationError", "kind_of", "members", "union"]
