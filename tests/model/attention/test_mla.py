"""Multi-head latent attention against transformers, against loops, and against itself absorbed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.model import DecoderSettings, count
from coterie.model.attention import LatentAttention
from coterie.model.context import ForwardContext
from coterie.model.geometry import document_starts
from coterie.model.position import RotaryPosition, Rotation, Span

transformers = pytest.importorskip("transformers", reason="the test extra brings it")

SIZES = {"kind": "mla", "heads": 4, "kv_rank": 10, "nope_dim": 6, "rope_dim": 8, "value_dim": 5}
S15ERA = {
    "kind": "mla", "heads": 8, "kv_rank": 64, "query_rank": 64, "nope_dim": 32, "rope_dim": 32,
    "value_dim": 64, "rotary_key": "per_head", "latent_norm": None,
}  # fmt: skip


def settings(**changes) -> LatentAttention:
    return LatentAttention.model_validate(SIZES | changes)


def build(width: int = 16, **changes):
    part = settings(**changes).build(width).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in part.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(
                drawn * (0.5 if parameter.ndim == 1 else 1.5 * parameter.shape[1] ** -0.5)
            )
    return part


def draw(length: int, batch: int = 2, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def rotation(start: int, length: int, at: Tensor | None = None, scale: float = 1.0) -> Rotation:
    part = RotaryPosition(layout="interleaved").build(16, 64)
    turn = part.rotation(Span(start, length, torch.device("cpu"), at))
    return Rotation(turn.turn, scale)


# Against transformers.


def deepseek(kind: str, query_rank: int | None, bias: bool):
    """Return a small model of transformers: two dense layers with latent attention."""
    torch.manual_seed(5)
    config = getattr(transformers, f"Deepseek{kind}Config")(
        vocab_size=29, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=10, q_lora_rank=query_rank,
        qk_nope_head_dim=6, qk_rope_head_dim=8, v_head_dim=5, first_k_dense_replace=2,
        attention_bias=bias, max_position_embeddings=64, attn_implementation="sdpa",
        rms_norm_eps=1e-6, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    model = getattr(transformers, f"Deepseek{kind}ForCausalLM")(config).double().eval()
    with torch.no_grad():  # fresh weights are so small that errors could hide
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ours(theirs, query_rank: int | None, bias: bool):
    """Return our decoder with the weights of theirs."""
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": 32, "context": 64, "vocab_size": 29,
        "attention": SIZES | {"query_rank": query_rank, "bias": bias},
        "position": {"kind": "rotary", "layout": "interleaved"},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 24}},
        "head": {"tied": False},
    }).build().double().eval()  # fmt: skip
    names = {
        "self_attn.q_proj.weight": "attention.query",
        "self_attn.q_a_proj.weight": "attention.query_down",
        "self_attn.q_a_proj.bias": "attention.query_down_bias",
        "self_attn.q_a_layernorm.weight": "attention.query_norm.weight",
        "self_attn.q_b_proj.weight": "attention.query_up",
        "self_attn.kv_a_proj_with_mqa.weight": "attention.kv_down",
        "self_attn.kv_a_proj_with_mqa.bias": "attention.kv_down_bias",
        "self_attn.kv_a_layernorm.weight": "attention.kv_norm.weight",
        "self_attn.kv_b_proj.weight": "attention.kv_up",
        "self_attn.o_proj.weight": "attention.output",
        "self_attn.o_proj.bias": "attention.output_bias",
        "input_layernorm.weight": "attention_norm.weight",
        "post_attention_layernorm.weight": "feedforward_norm.weight",
        "mlp.gate_proj.weight": "feedforward.mlp.gate",
        "mlp.up_proj.weight": "feedforward.mlp.up",
        "mlp.down_proj.weight": "feedforward.mlp.down",
    }
    state = {}
    for name, value in theirs.state_dict().items():
        if name.startswith("model.layers."):
            layer, rest = name.removeprefix("model.layers.").split(".", 1)
            state[f"blocks.{layer}.{names[rest]}"] = value
    state["embedding.weight"] = theirs.model.embed_tokens.weight
    state["norm.weight"], state["head.weight"] = theirs.model.norm.weight, theirs.lm_head.weight
    decoder.load_state_dict(state)
    return decoder


def in_float64(theirs, decoder, monkeypatch) -> None:
    """Let theirs compute in float64 where it would go to float32, and turn by our tables."""
    kind = "v2" if "V2" in type(theirs).__name__ else "v3"
    module = getattr(transformers.models, f"deepseek_{kind}")
    module = getattr(module, f"modeling_deepseek_{kind}")

    def unit(x, position_ids):
        rotate = decoder.position.rotation(Span(0, position_ids.shape[1], x.device))
        ones = torch.zeros(1, position_ids.shape[1], 1, 8, dtype=torch.float64)
        ones[..., ::2] = 1.0
        return torch.view_as_complex(rotate(ones).unflatten(-1, (-1, 2)))[:, :, 0]

    def tables(x, position_ids):
        both = unit(x, position_ids).repeat(1, 1, 2)
        return both.real, both.imag

    def turn(queries, keys, units):
        pairs = (
            torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) for x in (queries, keys)
        )
        return tuple(torch.view_as_real(x * units[:, None]).flatten(3) for x in pairs)

    def norm(self, x):
        return self.weight * (x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt())

    monkeypatch.setattr(getattr(module, f"Deepseek{kind.upper()}RMSNorm"), "forward", norm)
    monkeypatch.setattr(theirs.model.rotary_emb, "forward", unit if kind == "v2" else tables)
    if kind == "v2":  # its own function turns in float32 whatever it is given
        monkeypatch.setattr(module, "apply_rotary_emb", turn)


@pytest.mark.parametrize("kind", ["V2", "V3"])
@pytest.mark.parametrize(("query_rank", "bias"), [(None, False), (9, True)])
@torch.no_grad()
def test_logits_equal_those_of_deepseek_in_transformers(
    kind, query_rank, bias, monkeypatch, plain_cache
):
    theirs = deepseek(kind, query_rank, bias)
    decoder = ours(theirs, query_rank, bias)
    assert count(decoder.settings).parameters == sum(p.numel() for p in theirs.parameters())
    tokens = torch.randint(29, (2, 40))
    expected = theirs(tokens).logits
    torch.testing.assert_close(decoder(tokens).logits, expected, rtol=0, atol=2e-5)
    in_float64(theirs, decoder, monkeypatch)
    expected = theirs(tokens).logits
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(decoder(tokens).logits, expected, rtol=0, atol=1e-8)
    cache = plain_cache(decoder)
    pieces = [
        decoder(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split([30, 1, 1, 8], 1)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-8)


# Against the definition, written as loops.


def loops(part, x: Tensor, rotate: Rotation, visible) -> Tensor:
    """The attention of `part`, position by position and head by head."""
    sizes = part.settings
    batch, length, _ = x.shape
    heads, n, r, e = sizes.heads, sizes.nope_dim, sizes.rope_dim, sizes.value_channels
    query = x @ part.query.T if part.query is not None else None
    if query is None:
        latent = x @ part.query_down.T
        query = (part.query_norm(latent) if part.query_norm else latent) @ part.query_up.T
    query = query.view(batch, length, heads, n + r)
    down = x @ part.kv_down.T
    latent = (
        part.kv_norm(down[..., : sizes.kv_rank]) if part.kv_norm else down[..., : sizes.kv_rank]
    )
    rotary = rotate(down[..., sizes.kv_rank :].reshape(batch, length, -1, r).contiguous())
    turned = rotate(query[..., n:].contiguous())
    raised = (latent @ part.kv_up.T).view(batch, length, heads, n + e)
    result = x.new_zeros(batch, length, heads, e)
    for b in range(batch):
        for h in range(heads):
            own = h if sizes.rotary_key == "per_head" else 0
            for t in range(length):
                seen = [s for s in range(length) if visible(t, s)]
                logits = torch.stack([
                    query[b, t, h, :n] @ raised[b, s, h, :n] + turned[b, t, h] @ rotary[b, s, own]
                    for s in seen
                ])  # fmt: skip
                weights = (logits * rotate.logit_scale / (n + r) ** 0.5).softmax(0)
                result[b, t, h] = weights @ raised[b, seen, h, n:]
    return result.flatten(2) @ part.output.T


FORMS = {
    "plain": {"absorb": False}, "absorbed": {"absorb": True},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("changes", "visible"),
    [
        ({"query_rank": 7}, lambda t, s: s <= t),
        ({"rotary_key": "per_head", "query_rank": 5, "latent_norm": None}, lambda t, s: s <= t),
        ({"window": 3, "nope_dim": 3}, lambda t, s: t - 3 < s <= t),
        ({"window": 2, "sinks": 3}, lambda t, s: s <= t and (s < 3 or s > t - 2)),
    ],
)  # fmt: skip
@torch.no_grad()
def test_both_forms_equal_the_definition(changes, visible, form):
    part, x = build(**changes, **form), draw(9)
    rotate = rotation(0, 9, scale=1.3)
    torch.testing.assert_close(
        part(x, ForwardContext(rotation=rotate)),
        loops(part, x, rotate, visible),
        rtol=0,
        atol=1e-10,
    )


MASKS = {
    "all": {}, "window": {"window": 4}, "sinks": {"window": 3, "sinks": 2},
    "strided": {"sparse": {"kind": "strided", "stride": 3}},
    "per head": {"rotary_key": "per_head", "latent_norm": None, "window": 5, "sinks": 1},
}  # fmt: skip


@pytest.mark.parametrize("changes", MASKS.values(), ids=MASKS)
def test_absorbed_equals_plain_with_gradients_and_documents(changes):
    x = draw(14)
    documents = torch.tensor([[0] * 5 + [1] * 9, [4] * 2 + [5] * 7 + [6] * 5])
    at = torch.cat([torch.arange(n) for n in (5, 9, 2, 7, 5)]).view(2, 14)
    for rows, rotate in ((None, rotation(0, 14)), (documents, rotation(0, 14, at))):
        answers = []
        for absorb in (False, True):
            part, given = build(**changes, absorb=absorb), x.clone().requires_grad_()
            answer = part(
                given,
                ForwardContext(
                    rotation=rotate, document_starts=None if rows is None else document_starts(rows)
                ),
            )
            answers.append((answer, *torch.autograd.grad(answer.square().sum(), [
                given, *part.parameters()
            ])))  # fmt: skip
        for plain, absorbed in zip(*answers, strict=True):
            torch.testing.assert_close(absorbed, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("changes", MASKS.values(), ids=MASKS)
@torch.no_grad()
def test_packed_documents_are_read_as_if_alone(changes):
    part, x = build(**changes), draw(11)
    documents = torch.tensor([[0] * 4 + [1] * 7, [2] * 10 + [3]])
    at = torch.cat([torch.arange(n) for n in (4, 7, 10, 1)]).view(2, 11)
    packed = part(
        x, ForwardContext(rotation=rotation(0, 11, at), document_starts=document_starts(documents))
    )
    for row, start, stop in ((0, 0, 4), (0, 4, 11), (1, 0, 10), (1, 10, 11)):
        alone = part(
            x[row : row + 1, start:stop], ForwardContext(rotation=rotation(0, stop - start))
        )
        torch.testing.assert_close(packed[row : row + 1, start:stop], alone, rtol=0, atol=1e-12)


# What the cache holds, and which form is used.


@pytest.mark.parametrize("rotary_key", ["shared", "per_head"])
@torch.no_grad()
def test_the_cache_holds_latents_and_turned_keys_and_nothing_else(
    rotary_key, make_decoder, plain_cache, draw_tokens
):
    changes = {"attention": SIZES | {"rotary_key": rotary_key}}
    decoder, tokens = make_decoder(layers=1, **changes), draw_tokens(2, 6)
    cache = plain_cache(decoder)
    decoder(tokens, context=ForwardContext(cache=cache))
    part = decoder.blocks[0].attention
    x = decoder.blocks[0].attention_norm(decoder.embedding(tokens, None))
    down = x @ part.kv_down.T
    held = cache.layers[0]
    torch.testing.assert_close(held.keys[:, 0], part.kv_norm(down[..., :10]), rtol=0, atol=1e-12)
    rotate = decoder.position.rotation(Span(0, 6, tokens.device))
    keys = rotate(down[..., 10:].unflatten(-1, (-1, 8)).contiguous()).transpose(1, 2)
    assert keys.shape[1] == (1 if rotary_key == "shared" else 4)
    torch.testing.assert_close(held.values, keys, rtol=0, atol=1e-12)
    assert count(decoder.settings).cache_bytes_per_token == 4 * (10 + 8 * keys.shape[1])


@torch.no_grad()
def test_decoding_never_builds_keys_of_heads(make_decoder, plain_cache, draw_tokens, monkeypatch):
    decoder, tokens = make_decoder(attention=SIZES), draw_tokens(2, 12)
    cache = plain_cache(decoder)
    decoder(
        tokens[:, :10], context=ForwardContext(cache=cache)
    )  # the prompt is read in the plain form
    monkeypatch.setattr(
        "coterie.model.attention.mla.LatentAttentionPart._up_project",
        lambda *call: pytest.fail("raised"),
    )
    decoder(tokens[:, 10:11], context=ForwardContext(cache=cache))
    decoder(tokens[:, 11:], context=ForwardContext(cache=cache))


def test_the_form_is_chosen_by_cost():
    deepseek_v3 = LatentAttention(
        heads=128, kv_rank=512, query_rank=1536, nope_dim=128, rope_dim=64, value_dim=128
    )
    with torch.device("meta"):
        part, small = deepseek_v3.build(7168), LatentAttention(**S15ERA).build(512)
    assert part.absorbs(1, 1000)
    assert part.absorbs(100, 4000)
    assert not part.absorbs(4000, 4000)
    assert not part.absorbs(1000, 4000)  # many queries: raising each latent once costs less
    assert not part.absorbs(1, 1)
    assert small.absorbs(1, 512)
    assert not small.absorbs(512, 512)


def test_s15era_is_expressible():
    attention = LatentAttention.model_validate(S15ERA)
    attention.check(512)
    with torch.device("meta"):
        part = attention.build(512)
    shapes = {name: tuple(parameter.shape) for name, parameter in part.named_parameters()}
    assert shapes == {
        "query_down": (64, 512), "query_up": (8 * 64, 64), "kv_down": (64 + 8 * 32, 512),
        "kv_up": (8 * (32 + 64), 64), "output": (512, 512),
    }  # fmt: skip
    assert attention.counts(512, 512).cache == 64 + 8 * 32  # of 2 · 512 with whole heads


@pytest.mark.parametrize(
    "changes", [{}, {"query_rank": 7, "rotary_key": "per_head"}, {"window": 3}]
)
def test_operations_are_counted_as_they_are_done(changes):
    from torch.utils.flop_counter import FlopCounterMode

    part, length = build(**changes), 6
    counts = part.settings.counts(16, length)
    with FlopCounterMode(display=False) as counter:
        part(draw(length, 1), ForwardContext(rotation=rotation(0, length)))
    # The kernels compute every pair; the formula counts those that the mask lets through.
    products = next(each for each in counts.parts if each.name == "products").flops
    pairs = 2.0 * 4 * (6 + 8 + 5) * length
    assert counter.get_total_flops() == pytest.approx((counts.flops - products + pairs) * length)
    mean = sum(min(t + 1, part.settings.window or length) for t in range(length)) / length
    assert products == pytest.approx(pairs / length * mean)


def test_dropout_acts_in_both_forms_and_only_while_training():
    for absorb in (False, True):
        part, x = build(dropout=0.5, absorb=absorb), draw(9)
        assert torch.equal(part(x), part(x))
        part.train()
        assert not torch.equal(part(x), part(x))
