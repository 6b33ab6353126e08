"""Whole documents in rows: every pair once an epoch, nothing across, nothing needlessly cut."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.batch import IGNORE, TokenBatch
from coterie.data import BatchLoader, evaluation_batches
from coterie.data.packing import PADDING, Whole
from coterie.foundation.errors import DataError
from coterie.model import DecoderSettings
from coterie.train.objective import LanguageModel, Models

LENGTHS = [3, 1, 23, 2, 5, 5, 5, 1, 8, 16, 7, 4, 4, 3]


def epoch_of(split, context, epoch=0, **options):
    """Return the rows of an epoch, one batch each."""
    loader = BatchLoader(split, context, 1, packing=Whole(), **({"seed": 1} | options))
    count = loader._mixed[context]._rows[0].count
    return [loader.batch(epoch * count + number) for number in range(count)]


def stretches(batches):
    """Yield (document, inputs, targets) of every run of one document in a row."""
    for batch in batches:
        for tokens, targets, owners in zip(
            batch.tokens, batch.targets, batch.documents, strict=True
        ):
            edges = [0, *(np.flatnonzero(owners.diff()) + 1).tolist(), len(owners)]
            for begin, end in itertools.pairwise(edges):
                yield int(owners[begin]), tokens[begin:end].tolist(), targets[begin:end].tolist()


def gathered(batches):
    """Return the documents that rows hold, each put together from its pieces."""
    pieces = defaultdict(list)
    for owner, tokens, targets in stretches(batches):
        if owner == PADDING:
            assert not any(tokens)
            assert set(targets) == {IGNORE}
        else:
            assert tokens[1:] == targets[:-1]
            pieces[owner].append((tokens, targets[-1]))
    found = {}
    for owner, parts in pieces.items():
        parts.sort()
        for (_, after), (tokens, _) in itertools.pairwise(parts):
            assert after == tokens[0]
        found[owner] = [*itertools.chain(*(tokens for tokens, _ in parts)), parts[-1][1]]
    return found


def documents_of(split):
    ends = [*split.starts[1:], len(split)]
    parts = {d: split[a:b].tolist() for d, (a, b) in enumerate(zip(split.starts, ends))}  # noqa: B905
    return {d: tokens for d, tokens in parts.items() if len(tokens) > 1}  # else: no target


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=25), context=st.integers(1, 12))
def test_an_epoch_holds_every_document_once(split_of, lengths, context):
    split = split_of(lengths, shard_tokens=17)
    if lengths == [1]:
        with pytest.raises(DataError, match="no document of two tokens"):
            epoch_of(split, context)
        return
    for epoch in (0, 3):
        assert gathered(epoch_of(split, context, epoch)) == documents_of(split)


def test_only_documents_longer_than_a_row_are_cut(split_of):
    context = 8
    split = split_of(LENGTHS)
    pieces = defaultdict(list)
    for owner, tokens, _ in stretches(epoch_of(split, context)):
        pieces[owner].append(len(tokens))
    pairs = np.diff([*split.starts, len(split)]) - 1
    for document, count in enumerate(pairs.tolist()):
        cut = [context] * (count // context) + [count % context] * (count % context > 0)
        assert sorted(pieces[document], reverse=True) == cut


def test_batches_are_a_pure_function_of_seed_and_step(split_of):
    split = split_of(LENGTHS)
    loaders = [BatchLoader(split, 8, 4, seed=s, packing=Whole()) for s in (1, 1, 2)]
    forward = [loaders[0].batch(step) for step in range(12)]  # several epochs
    backward = [loaders[1].batch(step) for step in reversed(range(12))][::-1]
    for one, other in zip(forward, backward, strict=True):
        for name in ("tokens", "targets", "documents"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert any(
        not torch.equal(batch.tokens, loaders[2].batch(step).tokens)
        for step, batch in enumerate(forward)
    )


def test_ranks_share_one_batch(split_of):
    split = split_of(LENGTHS)
    whole = BatchLoader(split, 8, 4, seed=1, packing=Whole()).batch(3)
    for name in ("tokens", "targets", "documents"):
        parts = [
            getattr(BatchLoader(split, 8, 4, 1, rank=r, world=2, packing=Whole()).batch(3), name)
            for r in range(2)
        ]
        assert torch.equal(torch.cat(parts), getattr(whole, name))


def test_each_epoch_packs_other_documents_together(split_of):
    """Rows of two documents of 4 pairs each: which two, and in which order, changes."""
    split = split_of([4] * 40)
    epochs = [
        [tuple(batch.documents[0].unique().tolist()) for batch in epoch_of(split, 8, epoch)]
        for epoch in (0, 1)
    ]
    assert {frozenset(row) for row in epochs[0]} != {frozenset(row) for row in epochs[1]}
    assert len(epochs[0]) == len(epochs[1]) == 20


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_evaluation_scores_every_pair_once(split_of, batch_size):
    split = split_of(LENGTHS)
    batches = list(evaluation_batches(split, 8, batch_size, Whole()))
    assert gathered(batches) == documents_of(split)
    scored = sum(int(batch.valid.sum()) for batch in batches)
    assert scored == len(split) - len(LENGTHS)
    assert all(batch.tokens.shape[0] <= batch_size for batch in batches)


def test_nothing_to_evaluate_yields_nothing(split_of):
    assert list(evaluation_batches(split_of([]), 8, 2, Whole())) == []
    assert list(evaluation_batches(split_of([1]), 8, 2, Whole())) == []


EXPERTS = {
    "kind": "moe",
    "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
    "experts_per_token": 2,
    "router": {"z_loss": 0.1},
}


@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_a_packed_epoch_has_the_loss_and_gradients_of_documents_alone(split_of, position):
    """Losses, router terms and every gradient, in float64, of an epoch that cuts no document."""
    split = split_of(LENGTHS)
    torch.manual_seed(0)
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 32, "vocab_size": 1500, "position": position,
        "attention": {"kind": "grouped", "heads": 2}, "feedforward": EXPERTS, "mtp": {"depth": 1},
    })  # fmt: skip
    decoder = settings.build().double()
    objective = LanguageModel().build(settings)

    def of(batches):
        decoder.zero_grad()
        totals = defaultdict(float)
        for batch in batches:
            terms = objective(Models(decoder), batch).terms
            sum(term.total for term in terms).backward()
            for term in terms:
                totals[term.name] += float(term.total.detach())
        return totals, {name: each.grad.clone() for name, each in decoder.named_parameters()}

    packed = epoch_of(split, 32)
    ends = [*split.starts[1:].tolist(), len(split)]
    alone = []
    for start, end in zip(split.starts.tolist(), ends, strict=True):
        pairs = torch.from_numpy(split[start:end].astype(np.int64))  # the separator last, if any
        alone.append(TokenBatch(pairs[None, :-1], pairs[None, 1:]))
    assert len(packed) < len(alone)
    assert any((batch.documents == PADDING).any() for batch in packed)
    (losses, gradients), (wanted_losses, wanted) = of(packed), of(alone)
    assert losses == pytest.approx(wanted_losses, rel=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=1e-11, msg=name)
