"""Kinds of events: declared by deriving, read back typed, and kept where nobody declares them."""

from __future__ import annotations

from typing import Literal

import pytest

from coterie.foundation.events import (
    Count,
    Event,
    Notice,
    Number,
    Unknown,
    parse_event,
    resumed_from,
    step_of,
)


class Thing(Event):
    kind: Literal["my_lab.events:Thing"] = "my_lab.events:Thing"
    step: Count
    value: Number


def line(event: Event) -> bytes:
    return event.model_dump_json().encode()


def test_a_kind_is_read_as_its_class_once_it_is_defined():
    event = Thing(step=3, value=0.5)
    text = line(event).replace(b"Thing", b"Late")
    assert parse_event(line(event)) == event
    unknown = parse_event(text)
    assert isinstance(unknown, Unknown)

    class Late(Event):
        kind: Literal["my_lab.events:Late"] = "my_lab.events:Late"
        value: Number

    assert parse_event(text) == Late(time=event.time, value=0.5)


def test_an_event_of_an_unknown_kind_keeps_its_fields():
    content = b'{"time":5.0,"kind":"later","step":4,"resumed_from":2,"nested":[1,{"a":"b"}]}'
    event = parse_event(content)
    assert isinstance(event, Unknown)
    assert (event.kind, event.time, step_of(event), resumed_from(event)) == ("later", 5.0, 4, 2)
    assert event.model_dump_json().encode() == content
    assert event.numbers() == {}


@pytest.mark.parametrize("value", [b'"4"', b"-4", b"4.5", b"null", b"[]", b"{}"])
def test_an_unknown_event_with_an_odd_step_has_none(value):
    event = parse_event(b'{"kind":"later","step":%s,"resumed_from":%s}' % (value, value))
    assert (step_of(event), resumed_from(event)) == (0, None)


def test_fields_of_a_newer_version_are_passed_over():
    assert parse_event(b'{"kind":"notice","time":1,"message":"m","shiny":1}') == Notice(
        time=1, message="m"
    )


def test_a_kind_belongs_to_one_class():
    with pytest.raises(TypeError, match="cannot have the kind 'notice'"):

        class Other(Event):
            kind: Literal["notice"] = "notice"

    assert isinstance(parse_event(b'{"kind":"notice","message":"m"}'), Notice)


def test_a_class_that_is_defined_again_replaces_itself():
    for field in ("value", "worth"):
        again = type(
            "Again",
            (Event,),
            {
                "__module__": "notebook",
                "__annotations__": {"kind": Literal["notebook:Again"], field: float},
                "kind": "notebook:Again",
            },
        )
    assert type(parse_event(b'{"kind":"notebook:Again","worth":1}')) is again


@pytest.mark.parametrize(
    ("annotation", "default"), [(Literal["a", "b"], "a"), (Literal["a b"], "a b"), (int, 3)]
)
def test_a_kind_that_is_no_single_name_is_refused(annotation, default):
    with pytest.raises(TypeError, match=r"`kind: Literal\[TEXT\] = TEXT`"):
        type("Odd", (Event,), {"__annotations__": {"kind": annotation}, "kind": default})
