"""What all augmentations promise, and what each does to a text that one can read."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.batch import IGNORE
from coterie.data import BatchLoader, TokenArray
from coterie.data.augment import (
    Augment,
    BPEDropout,
    Case,
    FillInTheMiddle,
    Jitter,
    Mask,
    Pairs,
    Reverse,
    Shuffle,
    augmentations,
)
from coterie.data.augment.noise import Replacement, SpanMask, TokenDropout
from coterie.data.packing import Isolated, Stream, Whole
from coterie.data.packing.rows import PADDING
from coterie.data.ramp import Linear
from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import members
from coterie.tokenizer.settings import parse_tokenizer

SIGNS = ("<SPEAKER>", "</SPEAKER>", "<unk>", "<|reverse|>",
         "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")  # fmt: skip
TEXTS = (
    "<SPEAKER>ROMEO</SPEAKER>\nThou art mine, said he.\nAnd you are thine, I say.\n"
    "<SPEAKER>JULIET</SPEAKER>\nI know not where.\nBut stay a while.\n"
    "<SPEAKER>NURSE</SPEAKER>\nAnon, anon! I come.\nO'er yonder hill they go.\n",
    "A short one.\nTwo lines of it.\nThree are now here.\n",
    "Whither goest thou?\nHither, hither, my love, and so away.\nThe end of it all.\n",
)
TOKENIZER = parse_tokenizer("bpe:420", SIGNS).build(["".join(TEXTS)] * 20)
LETTERS = parse_tokenizer("characters", SIGNS).build(["".join(TEXTS) + "<|endoftext|>"])
KINDS = members(Augment)
NOISE = (TokenDropout, Mask, SpanMask, Replacement)


def split_of(tokenizer=TOKENIZER):
    parts = [tokenizer.encode(text) for text in TEXTS]
    row = [*itertools.chain(*([*part, tokenizer.end_of_text] for part in parts))][:-1]
    starts = np.cumsum([0, *(len(part) + 1 for part in parts[:-1])])
    return TokenArray([np.array(row, np.uint16)], starts=lambda: starts)


def loader(*settings, tokenizer=TOKENIZER, context=72, batch_size=6, seed=3, **options):
    augment = augmentations(settings, tokenizer, seed)
    return BatchLoader(split_of(tokenizer), context, batch_size, 1, augment=augment, **options)


def built(setting, tokenizer=TOKENIZER, seed=3):
    return augmentations([setting], tokenizer, seed)[0]


def same(one, other):
    names = ("tokens", "targets", "documents")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def runs(batch, row, separator=TOKENIZER.end_of_text):
    """Yield (inputs, targets) of each document's part of a row, padding left out."""
    tokens, targets = batch.tokens[row].tolist(), batch.targets[row].tolist()
    if batch.documents is not None:
        owners = batch.documents[row].tolist()
    else:
        owners = [0, *itertools.accumulate(token == separator for token in tokens[:-1])]
        live = [any(t != IGNORE for t in targets[at:]) for at in range(len(targets))]
        owners = [own if lives else PADDING for own, lives in zip(owners, live, strict=True)]
    for owner, part in itertools.groupby(range(len(tokens)), key=owners.__getitem__):
        places = list(part)
        if owner != PADDING:
            yield [tokens[p] for p in places], [targets[p] for p in places]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", [Stream(), Isolated(), Whole()])
def test_a_row_depends_on_seed_step_and_its_number(kind, packing):
    setting = kind(share=0.5)
    plain = loader(packing=packing).batch(2)
    made = built(setting)
    whole = made(plain, 7, 0)
    assert same(made(plain, 7, 0), whole)
    for row in range(6):
        rows = {name: each[row : row + 1] for name, each in plain._held()}
        alone = made(replace(plain, **rows), 7, row)
        assert torch.equal(alone.tokens[0], whole.tokens[row])
    others = [
        made(plain, 8, 0),
        built(setting, seed=4)(plain, 7, 0),
        built(kind(share=0.5, seed=1))(plain, 7, 0),
    ]
    assert not same(whole, plain)
    assert all(not same(other, whole) for other in others)
    ranks = [loader(setting, packing=packing, rank=r, world=3).batch(5) for r in range(3)]
    union = loader(setting, packing=packing).batch(5)
    assert torch.equal(torch.cat([each.tokens for each in ranks]), union.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_before_a_rate_begins_to_rise(kind):
    setting = kind(share=Linear(first=0, last=1, begin=3, end=4))
    plain = loader().batch(0)
    assert same(built(setting)(plain, 3, 0), plain)
    assert not same(built(setting)(plain, 4, 0), plain)


@pytest.mark.parametrize("kind", [each for each in KINDS if not each.reorders])
@pytest.mark.parametrize("packing", [Stream(), Isolated(), Whole()])
def test_targets_stay_the_true_text(kind, packing):
    plain = loader(packing=packing).batch(1)
    found = built(kind(share=0.6))(plain, 0, 0)
    for before, after in zip(plain.targets, found.targets, strict=True):
        if kind in NOISE:
            assert torch.equal(before, after)
        left = iter(before.tolist())  # what is left of the targets, in their order
        assert all(target in left for target in after[after != IGNORE].tolist())
    padding = found.documents == PADDING if packing.kind != "stream" else None
    assert padding is None or (found.targets[padding] == IGNORE).all()


@pytest.mark.parametrize("kind", [each for each in KINDS if each.reorders])
@pytest.mark.parametrize("packing", [Stream(), Isolated(), Whole()])
def test_reordered_text_predicts_itself(kind, packing):
    found = built(kind(share=1.0))(loader(packing=packing).batch(1), 0, 0)
    for row in range(6):
        for inputs, targets in runs(found, row):
            assert targets[:-1] == inputs[1:]


def test_split_tokens_are_the_same_text_and_predict_after_their_last_piece():
    plain = loader().batch(0)
    found = built(BPEDropout(share=0.8, rounds=3))(plain, 0, 0)
    for row in range(6):
        text = TOKENIZER.decode(plain.tokens[row])
        assert text.startswith(TOKENIZER.decode(found.tokens[row]))
        ends = [len(TOKENIZER.decode(plain.tokens[row][: at + 1])) for at in range(72)]
        said = 0
        for token, target in zip(found.tokens[row].tolist(), found.targets[row], strict=True):
            said += len(TOKENIZER.decode([token]))
            if target != IGNORE:
                assert target == plain.targets[row][ends.index(said)]
    assert (found.tokens != plain.tokens).any()


def test_words_change_their_case_whole():
    for tokenizer in (TOKENIZER, LETTERS):
        plain = loader(tokenizer=tokenizer).batch(0)
        for variant, change in (("upper", str.upper), ("lower", str.lower)):
            found = built(Case(share=1.0, variants=(variant,)), tokenizer)(plain, 0, 0)
            for row in range(6):
                one, other = (
                    tokenizer.decode(plain.tokens[row]),
                    tokenizer.decode(found.tokens[row]),
                )
                kept = [part for part in SIGNS if part in one]
                assert other.lower() == one.lower()[: len(other)]
                if not kept and tokenizer is TOKENIZER:
                    assert other == change(one)[: len(other)]
    found = built(Case(share=1.0, variants=("capital",)))(plain_of("mY owN, tWO, too"), 0, 0)
    assert TOKENIZER.decode(found.tokens[0]).startswith("My Own, T")


def plain_of(text, tokenizer=TOKENIZER, width=24):
    """Return a batch of one row of a text, padded."""
    tokens = tokenizer.encode(text)
    row = TokenArray([np.array(tokens, np.uint16)])
    batch = next(iter(BatchLoader(row, len(tokens) - 1, 1, 0, packing=Whole()).iterate()))
    pad = (0, width - len(tokens) + 1)
    fills = {"tokens": 0, "targets": IGNORE, "documents": PADDING}
    held = {n: torch.nn.functional.pad(e, pad, value=fills[n]) for n, e in batch._held()}
    return replace(batch, **held)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, LETTERS])
@pytest.mark.parametrize(
    ("to", "text", "wanted"),
    [
        ("usual", "Thou: Thou art o'er, sayst thou.", "Thou: You are over, sayst you."),
        ("usual", "thousand thou, fart thee", "thousand you, fart thee"),
        ("other", "The hen over here.", "The hen o'er hither."),
    ],
)
def test_words_stand_for_their_counterparts(tokenizer, to, text, wanted):
    if tokenizer is LETTERS:
        tokenizer = parse_tokenizer("characters", SIGNS).build([text + wanted])
    plain = plain_of(text, tokenizer, 40)
    found = built(Pairs(share=1.0, to=to), tokenizer)(plain, 0, 0)
    (inputs, targets) = next(runs(found, 0, tokenizer.end_of_text))
    assert tokenizer.decode(inputs) == wanted[: len(tokenizer.decode(inputs))]
    assert len(inputs) >= len(tokenizer.encode(wanted)) - 1
    said = [t for t in targets if t != IGNORE]
    left = iter(plain.targets[0].tolist())
    assert all(each in left for each in said)
    assert said[-1] == plain.targets[0][plain.valid[0]][-1]


def test_a_middle_goes_to_the_end_and_is_followed_by_the_separator():
    signs = TOKENIZER.encode("".join(SIGNS[-3:]))
    prefix, suffix, middle = signs
    orders = set()
    for packing in (Stream(), Isolated(), Whole()):
        plain = loader(packing=packing).batch(0)
        found = built(FillInTheMiddle(share=1.0))(plain, 0, 0)
        for row in range(6):
            for (before, _), (after, targets) in zip(
                runs(plain, row), runs(found, row), strict=True
            ):
                closed = before[-1] == TOKENIZER.end_of_text
                text = before[:-1] if closed else before
                part = after[:-1] if closed else after
                if len(text) < 6:
                    assert part == text
                    continue
                assert part[0] == prefix
                s, m = part.index(suffix), part.index(middle)
                orders.add(s == 1)
                tail = part[s + 1 : m]
                rest = text[: len(text) - 3]
                head = rest[: len(rest) - len(tail)]
                assert rest[len(head) :] == tail
                assert part[1:s] + part[m + 1 :] == head
                assert targets[len(part) - 1] in (TOKENIZER.end_of_text, IGNORE)
    assert orders == {True, False}


def test_lines_and_speeches_are_moved_whole_and_ends_stay():
    def cut(tokens, ends):
        lines, line = [], []
        for token in tokens:
            if ends == "speech" and token == TOKENIZER.encode("<SPEAKER>")[0] and line:
                lines.append(line)
                line = []
            line.append(token)
            if ends == "line" and b"\n" in TOKENIZER.token_bytes(token):
                lines.append(line)
                line = []
        return [*lines, *([line] if line else [])]

    moved = 0
    for unit, packing in itertools.product(("line", "speech"), (Stream(), Whole())):
        plain = loader(packing=packing, context=150).batch(0)
        found = built(Shuffle(share=1.0, unit=unit))(plain, 2, 0)
        for row in range(6):
            for (one, _), (other, _) in zip(runs(plain, row), runs(found, row), strict=True):
                before, after = cut(one, unit), cut(other, unit)
                assert sorted(before) == sorted(after)
                assert (before[0], before[-1]) == (after[0], after[-1])
                moved += before != after
    assert moved > 8


def test_reversed_lines_have_their_sign_and_read_backwards():
    sign = TOKENIZER.encode("<|reverse|>")[0]
    plain = loader(context=100).batch(0)
    found = built(Reverse(share=1.0))(plain, 2, 0)
    turned = 0
    for row in range(6):
        tokens, back, line = found.tokens[row].tolist(), [], []
        for token in tokens:
            line.append(token)
            if b"\n" in TOKENIZER.token_bytes(token):
                if line[0] == sign:
                    line = [*line[-2:0:-1], line[-1]]
                    turned += 1
                back += line
                line = []
        assert back == plain.tokens[row].tolist()[: len(back)]
    assert turned > 12


def test_a_row_begins_later_and_ends_in_padding():
    plain = loader(packing=Whole()).batch(0)
    found = built(Jitter(share=1.0, most=5))(plain, 0, 0)
    shifts = set()
    for row in range(6):
        fits = [
            s for s in range(6)
            if torch.equal(found.tokens[row][: 72 - s], plain.tokens[row][s:])
            and torch.equal(found.targets[row][: 72 - s], plain.targets[row][s:])
            and torch.equal(found.documents[row][: 72 - s], plain.documents[row][s:])
            and (found.documents[row][72 - s :] == PADDING).all()
        ]  # fmt: skip
        shifts.add(fits[0])
    assert len(shifts) > 1


def test_what_does_not_fit_is_refused_with_what_to_do():
    plain = parse_tokenizer("characters").build(["abc\n"])
    for kind in (Mask, Reverse, FillInTheMiddle):
        with pytest.raises(SettingsError, match="no single token") as error:
            augmentations([kind()], plain, 0)
        assert "tokenizer.special_tokens" in error.value.hint
    with pytest.raises(SettingsError, match="splits tokens"):
        augmentations([BPEDropout()], plain, 0)
    with pytest.raises(SettingsError, match="no token of this tokenizer ends a line"):
        augmentations([Shuffle()], parse_tokenizer("characters").build(["abc"]), 0)
    with pytest.raises(SettingsError, match="fim puts the text into another order") as error:
        augmentations([Jitter(), Mask(), FillInTheMiddle()], TOKENIZER, 0)
    assert error.value.hint == "Name fim first."
    augmentations([Jitter(), FillInTheMiddle(), Reverse(), Mask()], TOKENIZER, 0)
