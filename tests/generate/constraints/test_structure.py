"""Random choices among allowed tokens make sound documents, with every kind of tokenizer."""

import copy

import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.generate import Engine, SamplingSettings
from coterie.generate.constraints import Structure
from coterie.language.drama.cleaning import clean_text
from coterie.language.drama.tags import DRAMA_TAGS, check_tagged
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer

pytest.importorskip("llguidance")

TEXT = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?'-\n<>/"
CAST = ("HAMLET", "GHOST")
SHORT = {"acts": 1, "scenes": 1, "speeches": (1, 3), "lines": (1, 2), "width": 24}
FRAME = "<PLAY>T</PLAY>\n<ACT>I</ACT>\n<SCENE>I</SCENE>\n"


def tokenizer(name: str, tags: bool):
    return parse_tokenizer(name, special_tokens=DRAMA_TAGS if tags else ()).build([TEXT])


@pytest.mark.parametrize(
    ("name", "tags", "count"),
    [("characters", True, 12), ("characters", False, 4), ("bytes", True, 4), ("gpt2", True, 2),
     ("gpt2", False, 1)],
)  # fmt: skip
def test_random_tokens_make_sound_documents(name, tags, count, written):
    made = tokenizer(name, tags)
    for seed in range(count):
        setting = Structure(**SHORT, cast=CAST if seed % 2 else None)
        text = made.decode(written(setting.build(made, []), made, seed))
        assert check_tagged(text) == [], text
        assert not text.isascii() or clean_text(text).text == text
        for line in text.split("\n"):
            assert len(line.rpartition(">")[2].encode()) <= 24, line


@pytest.mark.exhaustive
def test_a_thousand_scenes_are_sound(written):
    made = tokenizer("characters", True)
    for seed in range(1000):
        setting = Structure(**SHORT, cast=CAST if seed % 2 else None)
        text = made.decode(written(setting.build(made, []), made, seed))
        assert check_tagged(text) == []
        assert not text.isascii() or clean_text(text).text == text


def test_taking_tokens_back_leaves_no_trace(written):
    made = tokenizer("characters", True)
    constraint = Structure(**SHORT, cast=CAST).build(made, [])
    tokens = written(Structure(**SHORT, cast=CAST).build(made, []), made, seed=5)
    zeros = torch.zeros(made.vocab_size)
    masks = []
    for token in tokens:
        masks.append(constraint.mask(zeros))
        constraint.accept(token)
    other = copy.deepcopy(constraint)
    for count in (1, 7, 40):
        other.rollback(count)
        place = len(tokens) - count
        assert torch.equal(other.mask(zeros), masks[place])
        for token in tokens[place:]:
            other.accept(token)
    assert torch.equal(constraint.mask(zeros), other.mask(zeros))


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    made = tokenizer("characters", True)
    model = {"layers": 1, "width": 16, "context": 64, "vocab_size": made.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    return Engine(DecoderSettings.model_validate(model).build(), made)


def settings(**changes):
    given = {"max_tokens": 600, "structure": SHORT} | changes
    return load_settings(SamplingSettings, [Layer("test", given)]).settings


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"top_k": 5, "min_p": 0.01, "cache": "window"},
        {"speculation": "lookup", "max_tokens": 300},
        {"beams": {"width": 2}, "max_tokens": 200, "temperature": 0.0},
    ],
    ids=str,
)
def test_a_prompt_is_continued_to_a_sound_text_under_any_sampling(engine, changes):
    prompt = "<SPEAKER>HAMLET</SPEAKER>\nTo be, "
    made = engine.generate(prompt, settings(**changes))
    whole = FRAME + prompt + made.text
    problems = check_tagged(whole)
    if made.finish_reason == "length":  # only what is not finished may be missing
        problems = check_tagged(whole.rpartition("\n")[0] + "\n")
        problems = [each for each in problems if "stanza mark" not in each]
    assert problems == [], whole


def test_what_cannot_be_met_is_refused(engine):
    with pytest.raises(SettingsError, match="a cast of none"):
        settings(structure={"cast": []})
    with pytest.raises(SettingsError, match="no name of a person"):
        settings(structure={"cast": ["A<"]})
    with pytest.raises(SettingsError, match="fewest, most"):
        settings(structure={"lines": [3, 2]})
    with pytest.raises(SettingsError, match="drama"):
        settings(structure="opera")
    with pytest.raises(UserError, match="line 2: words without a speaker"):
        engine.generate("<PLAY>T</PLAY>\nWords\nmore", settings())
    with pytest.raises(UserError, match="“HAM”, cannot stand there"):
        engine.generate("<PLAY>T</PLAY>\nHAM", settings())


def test_the_short_way_to_name_it():
    assert settings(structure="drama").limits == (Structure(),)
    assert settings(structure="drama", constraints=["structure"]).limits == (Structure(),) * 2
