"""Noise: a pure function of (seed, step, row) that leaves the targets alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.data import BatchLoader, TokenArray
from coterie.data.augment import Mask, Replacement, SpanMask, TokenDropout, augmentations
from coterie.foundation.errors import SettingsError
from coterie.tokenizer.raw_bytes import Bytes

TOKENIZER = Bytes(special_tokens=("<mask>",)).build()
MASK = TOKENIZER.encode("<mask>")[0]
TOKENS = TokenArray([np.arange(4000, dtype=np.uint16) % 250])


def loader(*settings, seed=3, **options):
    augment = augmentations(settings, TOKENIZER, seed)
    return BatchLoader(TOKENS, 64, 12, seed=1, augment=augment, **options)


def test_a_share_of_the_inputs_is_replaced_and_no_target():
    plain = loader()
    masked, drawn = loader(TokenDropout(share=0.3, token="<mask>")), loader(TokenDropout(share=0.3))
    counts = np.zeros(2)
    for step in range(6):
        before = plain.batch(step)
        for number, each in enumerate((masked, drawn)):
            after = each.batch(step)
            assert torch.equal(after.targets, before.targets)
            counts[number] += int((after.tokens != before.tokens).sum())
        changed = masked.batch(step).tokens
        assert ((changed == before.tokens) | (changed == MASK)).all()
        assert int(drawn.batch(step).tokens.max()) < TOKENIZER.vocab_size
    assert np.abs(counts / (6 * 12 * 64) - 0.3).max() < 0.03
    tokens = torch.cat([loader(TokenDropout(share=1)).batch(s).tokens for s in range(6)])
    assert len(tokens.unique()) == TOKENIZER.vocab_size
    assert torch.equal(loader(TokenDropout(share=0)).batch(0).tokens, plain.batch(0).tokens)


def test_it_depends_on_seed_step_and_row_alone():
    setting = TokenDropout(share=0.5, token="<mask>")
    (augment,) = augmentations([setting], TOKENIZER, 3)
    zeros = torch.zeros(12, 64, dtype=torch.int64)
    batch = TokenBatch(zeros, zeros)
    whole = augment(batch, 7, 0).tokens
    assert torch.equal(augment(batch, 7, 0).tokens, whole)
    rows = [augment(TokenBatch(zeros[:1], zeros[:1]), 7, row).tokens for row in range(12)]
    assert torch.equal(torch.cat(rows), whole)
    others = [augment(batch, 8, 0), augmentations([setting], TOKENIZER, 4)[0](batch, 7, 0)]
    second = augmentations([setting, setting], TOKENIZER, 3)[1]
    assert all(not torch.equal(each.tokens, whole) for each in [*others, second(batch, 7, 0)])
    assert len({tuple(row) for row in whole.tolist()}) == 12


def test_padding_stays():
    zeros = torch.zeros(2, 8, dtype=torch.int64)
    batch = TokenBatch(zeros, zeros)
    batch = replace(batch, targets=batch.targets.masked_fill(torch.arange(8) > 5, IGNORE))
    (augment,) = augmentations([TokenDropout(share=1, token="<mask>")], TOKENIZER, 0)
    assert augment(batch, 0, 0).tokens.tolist() == [[MASK] * 6 + [0, 0]] * 2


def test_a_text_that_is_no_token_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean “<mask>”"):
        augmentations([TokenDropout(token="<mas>")], TOKENIZER, 0)


def test_masks_and_spans_cover_their_share():
    kinds = (Mask(share=0.3, token="<mask>"), SpanMask(share=0.3, token="<mask>", length=4))
    for kind in kinds:
        masked = torch.cat([loader(kind).batch(step).tokens == MASK for step in range(40)])
        assert abs(masked.float().mean() - 0.3) < 0.02
    # Whatever is masked, three in a row at least, the row's ends apart.
    inner = masked[:, 1:-1]
    alone = inner & ~masked[:, :-2] & ~masked[:, 2:]
    assert not alone[:, 3:-3].any()


def test_a_replacement_is_of_the_row_and_tells_nothing_of_what_comes():
    augment = augmentations([Replacement(share=0.7)], TOKENIZER, 3)[0]
    batch = loader().batch(0)
    found = augment(batch, 4, 0).tokens
    assert (found != batch.tokens).float().mean() > 0.4
    for column in range(64):
        assert (found[:, column, None] == batch.tokens[:, : column + 1]).any(dim=1).all()
    later = batch.tokens.clone()
    later[:, 30:] = 251
    changed = augment(replace(batch, tokens=later), 4, 0).tokens
    assert torch.equal(changed[:, :30], found[:, :30])
