"""The counted n-gram model is modified Kneser–Ney, mixed in where the network is measured."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from coterie.model.heads import NgramSettings

VOCAB = 5


def text(length, seed=0):
    """Return tokens of which many n-grams come again."""
    generator = torch.Generator().manual_seed(seed)
    words = [torch.randint(VOCAB, (size,), generator=generator) for size in (3, 4, 5)]
    order = torch.randint(3, (length,), generator=generator)
    noise = torch.randint(VOCAB, (length,), generator=generator)
    return torch.cat([torch.cat((words[i], noise[n : n + 1])) for n, i in enumerate(order)])[
        :length
    ]


class Reference:
    """Chen & Goodman's interpolated modified Kneser–Ney by dictionaries in float64."""

    def __init__(self, tokens, order):
        grams = Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
        self.levels = {order: grams}
        for length in range(order - 1, 0, -1):
            self.levels[length] = Counter(gram[1:] for gram in self.levels[length + 1])

    def discount(self, length, count):
        seen = Counter(self.levels[length].values())
        ratio = seen[1] / max(seen[1] + 2 * seen[2], 1)
        r = min(count, 3)
        return min(max(r - (r + 1) * ratio * seen[r + 1] / max(seen[r], 1), 0.1), r - 0.05)

    def probability(self, context, token):
        length = len(context) + 1
        below = self.probability(context[1:], token) if context else 1 / VOCAB
        after = {g: c for g, c in self.levels[length].items() if g[:-1] == context}
        if not after:
            return below
        total = sum(after.values())
        left = sum(self.discount(length, count) for count in after.values()) / total
        count = after.get((*context, token), 0)
        return left * below + (count and (count - self.discount(length, count)) / total)


def counted(tokens, **settings):
    model = NgramSettings(**{"order": 4, "entries": 1000} | settings).build(VOCAB)
    model.count([tokens])
    return model


def test_probabilities_are_those_of_the_definition():
    tokens, asked = text(300), text(60, seed=1)
    model, reference = counted(tokens), Reference(tokens.tolist(), 4)
    found = model.log_probabilities(model.contexts(asked[None]))[0].exp()
    for at in range(len(asked)):
        context = tuple(asked[max(at - 2, 0) : at + 1].tolist())
        expected = [reference.probability(context, token) for token in range(VOCAB)]
        assert found[at].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.sum(-1).tolist() == pytest.approx([1] * len(asked), abs=1e-6)


def test_counts_do_not_depend_on_the_pieces_of_a_text():
    tokens = text(400)
    whole, other = counted(tokens), counted(tokens[:0])
    assert not other.levels()
    other.count(tokens.split([1, 2, 150, 0, 3, 244]))
    assert torch.equal(whole.grams, other.grams)
    assert torch.equal(whole.counts, other.counts)
    assert int(whole.counts.sum()) == len(tokens) - 3
    assert len(other.levels()) == 4


def test_ngrams_that_do_not_fit_are_shorter_ones():
    tokens = text(400)
    few = counted(tokens, entries=60)
    number = len({tuple(each) for each in tokens.unfold(0, int(few.length), 1).tolist()})
    longer = len({tuple(each) for each in tokens.unfold(0, int(few.length) + 1, 1).tolist()})
    assert number <= 60 < longer
    plain = counted(tokens, order=int(few.length))
    found, expected = (
        dict(zip(each.grams.tolist(), each.counts.tolist(), strict=True)) for each in (few, plain)
    )
    seams = 4 - int(few.length)  # the first tokens of the text end no longer n-gram
    assert sum(abs(found.get(gram, 0) - count) for gram, count in expected.items()) <= seams


def test_it_is_mixed_in_where_the_network_is_measured_and_left_out_in_training(make_decoder):
    decoder = make_decoder(
        vocab_size=VOCAB, ngram={"order": 3, "entries": 500, "share": 0.4}
    ).eval()
    tokens = text(24).view(2, 12)
    alone = decoder(tokens).logits
    decoder.ngram.count([text(300)])
    part = decoder.ngram
    expected = 0.6 * alone + 0.4 * part.log_probabilities(part.contexts(tokens))
    torch.testing.assert_close(decoder(tokens).logits, expected)
    torch.testing.assert_close(decoder(tokens, last=3).logits, expected[:, -3:])
    targets = tokens.roll(-1, 1)
    losses = -expected.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(decoder(tokens, targets).losses, losses)
    decoder.train()
    losses = -alone.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(decoder(tokens, targets).losses, losses)


def test_contexts_end_where_a_document_or_what_was_read_begins():
    model, tokens = counted(text(300)), text(9, seed=2)[None]
    places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]])
    cut = model.contexts(tokens, places=places)
    for part in (slice(0, 5), slice(5, 9)):
        assert torch.equal(cut[:, part], model.contexts(tokens[:, part]))
    whole = model.contexts(tokens)
    for begin, _ in pairwise(range(9)):
        recent = torch.cat((torch.full((1, 2), -1), tokens[:, :begin]), 1)[:, -2:]
        assert torch.equal(model.contexts(tokens[:, begin:], recent), whole[:, begin:])


@pytest.mark.parametrize(("vocab_size", "order"), [(5, 6), (2000, 5), (50_000, 3), (1 << 40, 2)])
def test_ngrams_of_large_vocabularies_are_shorter(vocab_size, order):
    settings = NgramSettings(order=6, entries=9)
    assert settings.longest(vocab_size) == order
    assert vocab_size**order < 1 << 63 or order == 2


def test_the_largest_tokens_of_a_large_vocabulary_are_counted():
    tokens = torch.tensor([49_999, 49_998, 7] * 4)
    model = NgramSettings(order=9, entries=50).build(50_000)
    assert model.count([tokens]) == 3
    following = model.log_probabilities(model.contexts(tokens[None]))[0].argmax(-1)
    assert torch.equal(following[1:-1], tokens[2:])
