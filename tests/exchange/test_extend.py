"""A longer context: the same weights, the right scaling, and factors that never pile up."""

from __future__ import annotations

import json
import re

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.cli.app import run as call
from coterie.exchange.extend import METHODS, extend
from coterie.exchange.runs import ORIGIN, write_model_run
from coterie.foundation.errors import UserError
from coterie.generate import Engine, SamplingSettings
from coterie.model import Decoder, DecoderSettings
from coterie.model.position.scaling import YarnScaling
from coterie.tokenizer.raw_bytes import Bytes

ORIGINAL = 12
every_method = pytest.mark.parametrize("method", METHODS)


def make(**changes) -> Decoder:
    values = {
        "layers": 2, "width": 16, "context": ORIGINAL, "vocab_size": 260,
        "attention": {"kind": "grouped", "heads": 2}, "initial": {"std": 0.3},
        "feedforward": {"kind": "moe", "experts": [{"count": 3}], "experts_per_token": 2,
                        "balance": "bias"},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(values | changes).build(
        torch.Generator().manual_seed(3)
    )
    for block in decoder.blocks:
        block.feedforward.balance.update(torch.tensor([1, 2, 3]))
    return decoder.eval()


@every_method
def test_weights_are_bit_equal_and_positions_are_those_of_the_settings(method):
    decoder = make()
    longer, original, factor = extend(decoder, 48, method)
    assert (original, factor) == (ORIGINAL, 4.0)
    assert longer.settings.context == 48
    assert longer.settings.position.scaling.kind == method
    assert longer.settings.position.scaling.factor == 4.0
    assert all(map(torch.equal, longer.state_dict().values(), decoder.state_dict().values()))
    tokens = torch.randint(260, (2, 40))
    other = DecoderSettings.model_validate(
        decoder.settings.model_dump()
        | {"context": 48, "position": {"kind": "rotary", "scaling": {
            "kind": method, "factor": 4,
            **({} if method in ("linear", "ntk") else {"original_context": ORIGINAL})}}}
    ).build().eval()  # fmt: skip
    other.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        logits = longer(tokens).logits
        assert torch.equal(logits, other(tokens).logits)
        assert not torch.allclose(logits, decoder(tokens).logits)
    assert decoder.settings.context == ORIGINAL


@every_method
@pytest.mark.parametrize("second", METHODS)
def test_extending_again_goes_from_the_original_context(method, second):
    decoder = make(context=7)
    once = extend(decoder, 20, method).decoder  # 20 / 7 is no round number
    again, original, factor = extend(once, 43, second)
    assert (original, factor) == (7, 43 / 7)
    assert again.settings == extend(decoder, 43, second).decoder.settings
    assert extend(again, 7, second).decoder.settings == decoder.settings


def test_a_scaling_of_the_same_kind_keeps_its_choices():
    scaling = YarnScaling.from_mscale(4.0, ORIGINAL, 0.7, 1.0).model_copy(update={"beta_fast": 8.0})
    decoder = make(context=48, position={"kind": "rotary", "scaling": scaling.model_dump()})
    found = extend(decoder, 96, "yarn").decoder.settings.position.scaling
    wanted = YarnScaling.from_mscale(8.0, ORIGINAL, 0.7, 1.0)
    assert found.beta_fast == 8.0
    assert found.attention_factor == pytest.approx(wanted.attention_factor, rel=1e-12)
    assert found.logit_factor == pytest.approx(wanted.logit_factor, rel=1e-12)


def test_without_positions_only_the_context_changes():
    decoder = make(position="none")
    longer = extend(decoder, 30, None).decoder
    assert longer.settings == decoder.settings.model_copy(update={"context": 30})
    tokens = torch.randint(260, (1, 30))
    assert torch.equal(longer(tokens).logits, decoder(tokens).logits)
    with pytest.raises(UserError, match="no positions"):
        extend(decoder, 30, "yarn")


@pytest.mark.parametrize(
    ("position", "context", "method", "says"),
    [
        ("learned", 24, "yarn", "“learned” cannot be extended.*model.context=24"),
        ("rotary", 11, "yarn", "shorter than the original one of 12"),
        ("rotary", 24, "yan", "did you mean “yarn”"),
        ("rotary", 24, None, "No method was named; choices: dynamic, linear, llama3, ntk, yarn"),
        ({"kind": "rotary", "fraction": 0.25}, 24, "ntk", "at least 4 turned channels"),
    ],
)
def test_refuses_what_cannot_be(position, context, method, says):
    decoder = make(position=position)
    with pytest.raises(UserError) as caught:
        extend(decoder, context, method)
    assert re.search(says, str(caught.value), re.DOTALL), str(caught.value)


@pytest.mark.parametrize(
    ("method", "cache"),
    [*((method, "full") for method in METHODS), ("dynamic", "none"), ("yarn", "none")],
)
def test_generates_beyond_the_original_context(method, cache):
    longer = extend(make(), 48, method).decoder
    sampling = SamplingSettings.model_validate(
        {"max_tokens": 20, "temperature": 0, "cache": cache}
    )  # fmt: skip
    engine = Engine(longer, Bytes().build(()))
    made = engine.generate("To be", sampling).tokens
    assert len(made) == 20
    with torch.no_grad():  # what a forward pass over the whole text predicts
        known = [*engine.encode_prompt("To be"), *made]
        for at in range(5, 25, 6):
            logits = longer(torch.tensor([known[:at]])).logits[0, -1]
            assert int(logits[:257].argmax()) == known[at]


def test_the_verb_makes_a_run_of_its_own(capsys):
    run = write_model_run(
        make(), Bytes().build(()), name="short", description="A model.", origin={}
    )  # fmt: skip
    assert call(["model", "extend", "short", "context=48", "method=yarn"]) == 0
    said = capsys.readouterr()
    assert "yarn × 4 of 12" in said.out
    assert "1.1386" in said.out  # 0.1 ln 4 + 1
    assert "coterie evaluate short-48" in said.err
    loaded, before = load_model("short-48"), load_model(run)
    assert loaded.decoder.settings.context == 48
    for name, tensor in before.decoder.state_dict().items():
        assert torch.equal(loaded.decoder.state_dict()[name], tensor)
    origin = json.loads((run.path.parent / "short-48" / ORIGIN).read_text())
    assert (origin["method"], origin["factor"], origin["original_context"]) == ("yarn", 4.0, 12)
    assert call(["generate", "short-48", "To be", "max_tokens=30", "min_tokens=30", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"][0]["tokens"]) == 30
    assert call(["model", "extend", "short-48", "context=96", "method=ntk", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["factor"]) == ("short-96", 8.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["context=48"], "No method was named"),
        (["method=yarn"], "context to reach was not named"),
        (["context=lots", "method=yarn"], "cannot be “lots”"),
        (["context=48", "method=yarn", "contex=3"], "did you mean “context”"),
    ],
)
def test_the_verb_says_what_is_missing(words, says, capsys):
    write_model_run(make(), None, name="short", description="", origin={})
    assert call(["model", "extend", "short", *words]) == 2
    assert says in capsys.readouterr().err
