"""What is written fits the grammar, expression, schema or choice that was asked for."""

import json
import re

import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import Characters

pytest.importorskip("llguidance")

TOKENIZER = Characters().build(['abc 0123456789{}[]":,.-\n'])
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip


def settings(**changes):
    return load_settings(SamplingSettings, [Layer("test", {"max_tokens": 60} | changes)]).settings


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    model = {"layers": 1, "width": 8, "context": 64, "vocab_size": TOKENIZER.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    return Engine(DecoderSettings.model_validate(model).build(), TOKENIZER)


@pytest.mark.parametrize("seed", range(3))
def test_texts_fit(engine, tmp_path, seed):
    def text(**changes):
        made = engine.generate("a", settings(seed=seed, **changes))
        assert made.finish_reason == "end"
        return made.text

    assert re.fullmatch("[ab]{2,5}c", text(regex="[ab]{2,5}c"))
    assert text(choices=["abc", "a, b", "1"]) in ("abc", "a, b", "1")
    grammar = tmp_path / "sum.lark"
    grammar.write_text('start: NUMBER ("-" NUMBER)~1..2\nNUMBER: /[1-9][0-9]?/\n')
    assert re.fullmatch(r"[1-9]\d?(-[1-9]\d?){1,2}", text(grammar=str(grammar)))
    assert json.loads(text(json_schema={"schema": SCHEMA, "file": None})).keys() == {"a"}
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    assert "a" in json.loads(text(json_schema=str(tmp_path / "schema.json")))


def test_two_constraints_hold_together(engine):
    both = settings(regex="[abc]{4}", constraints=[{"kind": "forbid", "texts": ["a", "bb"]}])
    for seed in range(3):
        text = engine.generate("a", both.model_copy(update={"seed": seed})).text
        assert re.fullmatch("(?!.*bb)[bc]{4}", text)


def test_taking_tokens_back_leaves_no_trace():
    constraint = settings(regex="ab?c").limits[0].build(TOKENIZER, [])
    zeros = torch.zeros(TOKENIZER.vocab_size)
    a, b, c = (TOKENIZER.encode(each)[0] for each in "abc")
    first = constraint.mask(zeros)
    for token in (a, b, c, TOKENIZER.end_of_text):
        constraint.accept(token)
    constraint.rollback(3)
    assert {b, c} == set(torch.isfinite(constraint.mask(zeros)).nonzero().flatten().tolist())
    constraint.rollback(1)
    assert torch.equal(constraint.mask(zeros), first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regex": "a(b"}, "regex: .*a\\(b"),
        ({"grammar": {"text": "start: b\n"}}, "grammar: at 1\\("),
        ({"grammar": "no/such.lark"}, "^grammar: no/such.lark cannot be read"),
        ({"json_schema": __file__}, "^json_schema: .*test_grammars.py is no JSON: .*line 1"),
        ({"json_schema": {"schema": {"type": "animal"}}}, "json_schema: .*animal"),
        ({"regex": "z+"}, "leave no token"),
    ],
)
def test_what_is_malformed_is_refused_at_the_door(engine, changes, message):
    with pytest.raises(UserError, match=re.compile(message, re.S)):
        engine.generate("a", settings(**changes))


def test_settings_that_say_nothing_are_refused():
    with pytest.raises(SettingsError, match="name the grammar's file"):
        settings(grammar={})
    with pytest.raises(SettingsError, match="name the schema's file"):
        settings(json_schema={"file": "a", "schema": {}})
