"""Latent-vector attention against loops that know nothing of grids, padding or caches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.foundation.errors import CoterieError
from coterie.model import count
from coterie.model.attention import LatentVectorAttention
from coterie.model.context import ForwardContext
from coterie.model.geometry import document_starts
from coterie.model.position import RotaryPosition, Rotation, Span

CHANNELS = 6
SIZES = {"heads": 4, "kv_heads": 2, "head_dim": CHANNELS, "chunk": 4, "latents": 3}


def build(width: int = 12, **changes):
    part = LatentVectorAttention.model_validate(SIZES | changes).build(width).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return part


def draw(length: int, batch: int = 2, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def rotation(length: int, layout: str, at: Tensor | None = None, scale: float = 1.0) -> Rotation:
    part = RotaryPosition(layout=layout, theta=100.0).build(16, 64)
    return Rotation(part.rotation(Span(0, length, torch.device("cpu"), at)).turn, scale)


def loops(part, x: Tensor, rotate: Rotation | None) -> Tensor:
    """The definition for one text [1, T, D]: chunk by chunk, head by head, token by token."""
    length, size, number = x.shape[1], part.chunk, part.latents.shape[1]
    turn = rotate or (lambda each: each)
    scale = CHANNELS**-0.5 * (rotate.logit_scale if rotate else 1.0)
    query = turn((x @ part.query.T).view(1, length, -1, CHANNELS))[0]
    keys = turn((x @ part.key.T).view(1, length, -1, CHANNELS))[0]
    values = (x @ part.value.T).view(length, -1, CHANNELS)
    groups = query.shape[1] // keys.shape[1]
    answer = torch.zeros_like(query)
    for head in range(query.shape[1]):
        shared = head // groups
        summaries: list[tuple[Tensor, Tensor]] = []
        for begin in range(0, length, size):
            places = range(begin, min(begin + size, length))
            for t in places:
                read = [
                    *summaries,
                    *((keys[s, shared], values[s, shared]) for s in places if s <= t),
                ]
                logits = torch.stack([query[t, head] @ key for key, _ in read]) * scale
                answer[t, head] = logits.softmax(0) @ torch.stack([value for _, value in read])
            if len(places) < size:
                break
            for index in range(number):
                latent = part.latents[shared, index].expand(1, length, 1, CHANNELS)
                latent = turn(latent)[0, places[-1], 0]  # it stands at the chunk's last position
                weights = (keys[places, shared] @ latent * scale).softmax(0)
                summaries.append((weights @ keys[places, shared], weights @ values[places, shared]))
    return (answer.flatten(1) @ part.output.T)[None]


@pytest.mark.parametrize("layout", [None, "half", "interleaved"])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 14])
@torch.no_grad()
def test_equals_the_definition(length, layout):
    part, x = build(), draw(length)
    rotate = None if layout is None else rotation(length, layout, scale=1.3)
    expected = torch.cat([loops(part, row[None], rotate) for row in x])
    torch.testing.assert_close(
        part(x, ForwardContext(rotation=rotate)), expected, rtol=0, atol=1e-10
    )


@torch.no_grad()
def test_summaries_depend_on_distances_alone():
    part, x = build(), draw(14, batch=1)
    at = torch.arange(14)[None]
    moved = part(x, ForwardContext(rotation=rotation(14, "half", at + 9)))
    torch.testing.assert_close(
        moved, part(x, ForwardContext(rotation=rotation(14, "half", at))), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("changes", [{"chunk": 1, "latents": 1}, {"chunk": 12, "latents": 4}])
def test_without_anything_to_summarise_it_is_ordinary_attention(
    changes, make_decoder, draw_tokens, plain_cache
):
    sizes = {"heads": 4, "kv_heads": 2}
    ordinary = make_decoder(attention={"kind": "grouped", **sizes})
    latent = make_decoder(attention={"kind": "latent_vectors", **sizes, **changes})
    latent.load_state_dict(ordinary.state_dict(), strict=False)
    tokens = draw_tokens(2, 11)
    expected = ordinary(tokens).logits
    torch.testing.assert_close(latent(tokens).logits, expected, rtol=0, atol=1e-12)
    cache = plain_cache(latent)
    pieces = [
        latent(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split([2, 6, 3], 1)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@torch.no_grad()
def test_chunks_begin_anew_with_each_document(layout):
    part, x = build(), draw(19)
    lengths = [[6, 9, 4], [1, 18]]
    documents = torch.tensor([[i for i, n in enumerate(row) for _ in range(n)] for row in lengths])
    at = torch.tensor([[i for n in row for i in range(n)] for row in lengths])
    packed = part(
        x,
        ForwardContext(
            rotation=rotation(19, layout, at), document_starts=document_starts(documents)
        ),
    )
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            text = x[row : row + 1, start : start + size]
            alone = part(text, ForwardContext(rotation=rotation(size, layout)))
            torch.testing.assert_close(
                packed[row : row + 1, start : start + size], alone, rtol=0, atol=1e-12
            )
            start += size


def test_gradients_of_documents_equal_those_of_each_alone():
    documents, at = torch.tensor([[0] * 6 + [1] * 5]), torch.tensor([[*range(6), *range(5)]])
    part, x = build(), draw(11, batch=1)
    weights = torch.linspace(-1, 1, 12, dtype=torch.float64)
    packed = part(
        x,
        ForwardContext(
            rotation=rotation(11, "half", at), document_starts=document_starts(documents)
        ),
    )
    together = torch.autograd.grad((packed * weights).sum(), list(part.parameters()))
    alone = [
        part(x[:, :6], ForwardContext(rotation=rotation(6, "half"))),
        part(x[:, 6:], ForwardContext(rotation=rotation(5, "half"))),
    ]
    apart = torch.autograd.grad(sum((each * weights).sum() for each in alone), part.parameters())
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("length", "reached"), [(4, False), (5, True), (12, True)])
def test_gradients_reach_the_latents_from_the_second_chunk_on(length, reached):
    part = build()
    part(draw(length), ForwardContext(rotation=rotation(length, "half"))).square().sum().backward()
    gradient = part.latents.grad
    assert (gradient is not None and bool((gradient.abs().sum(-1) > 0).all())) == reached


@pytest.mark.parametrize("pieces", [(1,) * 13, (4, 4, 5), (3, 1, 9), (2, 7, 4), (12, 1), (13,)])
@torch.no_grad()
def test_a_cache_holds_summaries_and_the_running_chunk(
    pieces, make_decoder, plain_cache, draw_tokens
):
    changes = {"attention": {"kind": "latent_vectors"} | SIZES, "layers": 1}
    decoder, tokens = make_decoder(**changes), draw_tokens(2, 13)
    cache, read = plain_cache(decoder), 0
    expected = decoder(tokens).logits
    for piece in tokens.split(pieces, 1):
        got = decoder(piece, context=ForwardContext(cache=cache)).logits
        torch.testing.assert_close(
            got, expected[:, read : read + len(piece[0])], rtol=0, atol=1e-12
        )
        read += piece.shape[1]
        held = read // 4 * 3 + read % 4  # three summaries for four tokens
        assert cache.elements == 2 * 2 * 2 * CHANNELS * held
    per_token = count(decoder.settings).cache_bytes_per_token / 4
    assert per_token == 2 * 2 * CHANNELS * 3 / 4


def test_operations_are_those_of_the_pairs_that_are_read():
    settings = LatentVectorAttention.model_validate(SIZES)
    for length in (3, 4, 5, 8, 14):
        chunks = [t // 4 for t in range(length)]
        own = sum(t % 4 + 1 for t in range(length))
        far = sum(3 * chunk for chunk in chunks)
        summarised = 4 * chunks[-1]  # tokens of chunks that a later token reads
        linears = 2 * 12 * CHANNELS * (4 + 2 + 2 + 4)
        expected = 4 * 4 * CHANNELS * (own + far) + 6 * 2 * 3 * CHANNELS * summarised
        flops = settings.counts(12, length).flops
        assert flops == pytest.approx(linears + expected / length)


def test_the_largest_product_grows_with_the_summaries_and_not_with_the_text(monkeypatch):
    largest, softmax = [], torch.Tensor.softmax

    def spy(logits, *rest):
        largest.append(logits.shape[-1])
        return softmax(logits, *rest)

    monkeypatch.setattr(torch.Tensor, "softmax", spy)
    part = build(chunk=32, latents=2)
    for length in (256, 512):
        largest.clear()
        part(draw(length, batch=1))
        assert max(largest) == 32 + 2 * (length // 32 - 1)


def test_dropout_acts_only_while_training():
    part, x = build(dropout=0.5), draw(9)
    assert torch.equal(part(x), part(x))
    part.train()
    assert not torch.equal(part(x), part(x))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latents": 9}, "latents=9 would summarise chunk=4"),
        ({"kv_heads": 3}, "not a multiple of kv_heads=3"),
        ({"head_dim": None, "heads": 5, "kv_heads": 5}, "cannot share a width of 16"),
    ],
)
def test_sizes_that_do_not_fit_are_told(changes, words, make_settings):
    with pytest.raises((ValueError, CoterieError), match=words):
        make_settings(attention={"kind": "latent_vectors"} | SIZES | changes)
