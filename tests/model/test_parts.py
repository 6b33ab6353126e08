"""Single parts against their definitions: norms, positions, embeddings, initial values."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.model import InitialSettings, parameter_roles
from coterie.model.context import ForwardContext
from coterie.model.embedding import NgramEmbedding
from coterie.model.embedding.hashing import ngram_rows
from coterie.model.norm import RMSNorm
from coterie.model.part import Part, owned_parameters
from coterie.model.position import RotaryPosition, Span


@pytest.mark.parametrize("scale", [True, False])
def test_rms_norm_and_its_derivative(scale):
    part = RMSNorm(epsilon=1e-3, scale=scale).build(6).double()
    if scale:
        torch.nn.init.normal_(part.weight)
    x = torch.randn(2, 5, 6, dtype=torch.float64).requires_grad_()
    weight = part.weight if scale else 1.0
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    torch.testing.assert_close(part(x), expected)
    assert torch.autograd.gradcheck(lambda value: part(value), (x,))
    if scale:
        expected.square().sum().backward()
        by_hand = part.weight.grad.clone()
        part.weight.grad = None
        part(x).transpose(0, 1).square().sum().backward()  # a gradient that is not contiguous
        torch.testing.assert_close(part.weight.grad, by_hand)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_turns_pairs_by_the_formula(layout, fraction):
    part = RotaryPosition(layout=layout, fraction=fraction, theta=100.0).build(16, 4)
    x = torch.randn(1, 6, 2, 8)
    got = part.rotation(Span(3, 6, x.device))(x)
    turned = int(8 * fraction)
    for t in range(6):
        for i in range(turned // 2):
            pair = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + turned // 2)
            angle = (3 + t) * 100.0 ** (-2 * i / turned)
            a, b = (x[0, t, :, channel] for channel in pair)
            expected = (
                a * math.cos(angle) - b * math.sin(angle),
                b * math.cos(angle) + a * math.sin(angle),
            )
            for channel, value in zip(pair, expected, strict=True):
                torch.testing.assert_close(got[0, t, :, channel], value)
    assert torch.equal(got[..., turned:], x[..., turned:])


def test_rotary_depends_on_distance_alone_far_beyond_its_table():
    part = RotaryPosition().build(16, 4)
    query, key = torch.randn(2, 1, 1, 1, 16)

    def product(at, distance):
        turned = part.rotation(Span(at, 1, query.device))(query)
        return float((turned * part.rotation(Span(at - distance, 1, key.device))(key)).sum())

    for at in (5, 1000, 100_000):
        assert product(at, 3) == pytest.approx(product(3, 3), abs=1e-4)


def test_learned_positions_end_with_the_context(make_decoder, draw_tokens):
    decoder = make_decoder(position="learned")
    assert decoder(draw_tokens(1, 12)).logits.shape == (1, 12, 23)
    with pytest.raises(UserError, match="13 tokens, but this model has learned positions for 12"):
        decoder(draw_tokens(1, 13))
    with pytest.raises(UserError, match="13 tokens, but this model has learned positions for 12"):
        decoder(
            draw_tokens(1, 14), context=ForwardContext(documents=torch.tensor([[0] + [1] * 13]))
        )


def test_ngrams_hash_to_the_same_rows_on_every_machine():
    tokens = torch.tensor([[7, 1, 2, 3, 1, 2]])
    rows = ngram_rows(tokens, (2, 3), 1000)
    assert rows.shape == (1, 4, 2)
    assert torch.equal(rows[0, 0, 0], rows[0, 3, 0]), "the same bigram, the same row"
    assert rows[0, 0, 1] != rows[0, 3, 1], "but not the same trigram"
    assert (rows[..., 1] >= 1000).all()
    assert (rows[..., 1] < 2000).all()
    # Fixed for ever: trained tables depend on these values.
    prime, base = 2**31 - 1, 1_000_003
    mixer = pow(1_540_483_477, 2, prime)
    assert int(rows[0, 0, 0]) == ((2 + 1) + (1 + 1) * base) % prime * mixer % prime % 1000


def test_ngrams_spread_evenly_over_rows():
    tokens = torch.randint(65, (1, 40_000), generator=torch.Generator().manual_seed(0))
    rows = ngram_rows(tokens, (3,), 256).flatten()
    load = torch.bincount(rows, minlength=256).float()
    assert load.max() / load.mean() < 1.5
    assert load.min() / load.mean() > 0.5


def test_ngram_embedding_reads_back_exactly_its_longest_order(make_decoder):
    settings = NgramEmbedding(orders=(2, 4), rows=4096, dim=8)
    part = settings.build(50, 16)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.arange(12)[None]
    before = part(tokens)
    changed = tokens.clone()
    changed[0, 5] = 40
    moved = (part(changed) - before).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [5, 6, 7, 8]
    later = part(tokens[:, 6:], tokens[:, 3:6])
    torch.testing.assert_close(later, before[:, 6:])


@pytest.mark.parametrize("combine", ["project", "add"])
def test_ngrams_do_not_reach_into_another_document(combine, make_decoder, draw_tokens):
    embedding = {"kind": "ngram", "orders": [2, 4], "rows": 31, "std": 0.3, "combine": combine}
    decoder, tokens = make_decoder(embedding=embedding), draw_tokens(length=9)
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2], [3, 1, 1, 1, 1, 1, 1, 3, 3]])
    packed = decoder(tokens, context=ForwardContext(documents=documents)).logits
    for row, ends in enumerate(([4, 6, 9], [1, 7, 9])):
        for start, end in zip([0, *ends], ends, strict=False):
            alone = decoder(tokens[row : row + 1, start:end]).logits[0]
            torch.testing.assert_close(packed[row, start:end], alone)


@pytest.mark.parametrize(
    ("attention", "fraction"),
    [
        ({"kind": "grouped", "heads": 2, "head_dim": 5}, 0.8),
        ({"kind": "mla", "heads": 1, "kv_rank": 5, "nope_dim": 3, "rope_dim": 4}, 1.0),
    ],
)
def test_interleaved_pairs_may_begin_anywhere(attention, fraction, make_decoder, draw_tokens):
    position = {"kind": "rotary", "layout": "interleaved", "fraction": fraction}
    decoder, tokens = make_decoder(attention=attention, position=position), draw_tokens()
    whole = decoder(tokens).logits
    torch.testing.assert_close(decoder(tokens[:1, :1]).logits, whole[:1, :1])


def test_last_gives_the_logits_of_the_last_positions(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(), draw_tokens()
    torch.testing.assert_close(decoder(tokens, last=2).logits, decoder(tokens).logits[:, -2:])


def test_factorised_tokens_begin_as_large_as_full_ones(make_settings):
    spreads = []
    for embedding in ({"kind": "full"}, {"kind": "factorised", "rank": 8}):
        settings = make_settings(embedding=embedding, vocab_size=3000, initial={"std": 0.05})
        decoder = settings.build(torch.Generator().manual_seed(0))
        spreads.append(float(decoder.embedding(torch.arange(3000)[None]).std().detach()))
    assert spreads[0] == pytest.approx(0.05, rel=0.05)
    assert spreads[1] == pytest.approx(0.05, rel=0.3)


def test_initial_values_follow_the_settings(make_settings):
    def spread(name, **initial):
        settings = make_settings(
            width=64, layers=8, vocab_size=500, initial=InitialSettings(**initial)
        )
        decoder = settings.build(torch.Generator().manual_seed(3))
        return dict(decoder.named_parameters())[name].std().item()

    query, output = "blocks.1.attention.query", "blocks.1.attention.output"
    assert spread(query, std=0.1) == pytest.approx(0.1, rel=0.05)
    assert spread(query, std=None) == pytest.approx(1 / 8, rel=0.05)
    assert spread(output, std=0.1) == pytest.approx(0.1 / 4, rel=0.05)
    assert spread(output, std=0.1, outputs="plain") == pytest.approx(0.1, rel=0.05)
    assert spread(output, outputs="zero") == 0
    assert spread("head.weight", head="zero") == 0
    assert spread("embedding.weight", std=None, embedding_std=0.7) == pytest.approx(0.7, rel=0.05)


def test_the_same_generator_gives_the_same_decoder_whatever_happened_before(make_settings):
    settings = make_settings(embedding={"kind": "ngram", "rows": 7, "dim": 4})
    torch.manual_seed(1)
    one = settings.build(torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    two = settings.build(torch.Generator().manual_seed(5)).state_dict()
    three = settings.build(torch.Generator().manual_seed(6)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedding.table"], three["embedding.table"])


def test_roles_name_every_parameter_or_fail(make_decoder):
    roles = parameter_roles(make_decoder(embedding={"kind": "ngram", "rows": 7, "dim": 4},
                                         position="learned", norm="layer"))  # fmt: skip
    assert roles["embedding.table"] == "table"
    assert roles["position.weight"] == roles["embedding.weight"] == "embedding"
    assert roles["blocks.0.attention.query"] == "matrix"
    assert roles["norm.bias"] == "bias"

    class Forgetful(Part):
        def __init__(self):
            super().__init__()
            self.secret = torch.nn.Parameter(torch.zeros(1))

    with pytest.raises(TypeError, match="Forgetful does not say the role of its parameter"):
        list(owned_parameters(Forgetful()))


def test_a_vocabulary_must_be_known_before_building(make_settings):
    with pytest.raises(SettingsError, match="vocabulary size is not known"):
        make_settings(vocab_size=None).build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": {"kind": "grouped", "heads": 3}}, "3 attention heads cannot share a width"),
        ({"attention": {"kind": "grouped", "heads": 4, "kv_heads": 3}}, "not a multiple"),
        ({"attention": {"kind": "grouped", "heads": 4, "head_dim": 5}}, "even and not 0"),
        ({"pattern": ["moe"]}, "there is no block “moe”"),
        ({"blocks": {"a": {}}}, "names block “a”"),
        ({"blocks": {"a": {}}, "opening": ["a"] * 3}, "opening names 3 layers of 2"),
        ({"embedding": {"kind": "ngram", "dim": 4, "combine": "add"}}, "as wide as the model"),
        ({"embedding": {"kind": "ngram", "orders": [3, 2]}}, "ascending"),
        ({"attention": {"kind": "group"}}, "did you mean “grouped”"),
        ({"feedforward": {"kind": "moe", "experts": [], "experts_per_token": 1}}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message, make_settings):
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)
