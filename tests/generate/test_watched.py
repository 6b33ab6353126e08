"""A watched text is the unwatched one, and its records are what the model says of each token."""

import numpy as np
import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.foundation.traces import NO_EXPERT
from coterie.generate import Engine, SamplingSettings
from coterie.generate import session as sessions
from coterie.generate.watched import WatchedText
from coterie.model import DecoderSettings
from coterie.model.observe import Steering
from coterie.tokenizer.raw_bytes import Bytes

GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}
MOE = {"kind": "moe", "experts": [{"count": 5}], "experts_per_token": 2}
DENSE = {"kind": "dense", "mlp": {"kind": "gated", "width": 12}}


def make(attention=GROUPED, **changes):
    values = {
        "layers": 2, "width": 16, "context": 24, "vocab_size": 257, "attention": attention,
        "feedforward": MOE, "initial": {"std": 0.4, "outputs": "plain"},
    } | changes  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0))
    return Engine(decoder.double(), Bytes().build([]))


def watch(engine, prompt, sampling, **options):
    text = WatchedText(engine, prompt, sampling, **options)
    seen = list(text)
    return (
        np.concatenate([each.records for each in seen]),
        "".join(part for each in seen for part in each.texts),
        {token: word for each in seen for token, word in each.words.items()},
        text,
    )


LATENTS = {"kind": "latent_vectors", "heads": 4, "chunk": 4, "latents": 2}


@pytest.mark.parametrize("attention", [GROUPED, GROUPED | {"window": 6}, LATENTS])
def test_the_text_is_the_unwatched_one(attention, monkeypatch):
    monkeypatch.setattr(sessions, "PIECE", 5)  # prompts are read in pieces
    engine = make(attention)
    sampling = SamplingSettings(
        max_tokens=30, top_k=40, logprobs=1, compute="torch", frequency_penalty=0.2
    )
    plain = engine.generate("Hello wörld, you", sampling)
    records, text, words, watched = watch(engine, "Hello wörld, you", sampling)
    prompt = engine.encode_prompt("Hello wörld, you")
    assert records["token"].tolist() == [*prompt, *plain.tokens]  # beyond the context too
    assert text == "Hello wörld, you" + plain.text
    assert watched.finish_reason == plain.finish_reason
    assert records["generated"].tolist() == [False] * len(prompt) + [True] * len(plain.tokens)
    assert records["read"].tolist() == [True] * (len(records) - 1) + [False]
    own = records[records["generated"]]
    np.testing.assert_allclose(-own["surprise"], plain.logprobs, atol=1e-5)
    best = [(top[0][0], np.exp(top[0][1])) for top in plain.top_logprobs]
    assert own["before"][:, 0].tolist() == [token for token, _ in best]
    np.testing.assert_allclose(own["before_p"][:, 0], [p for _, p in best], rtol=1e-5)
    assert (own["allowed"] == 40).all()
    assert words[int(own["before"][0, 0])] == engine.tokenizer.decode([int(own["before"][0, 0])])
    assert np.isnan(records["attention_entropy"]).all() == (attention is LATENTS)


def test_the_prompt_is_scored_and_read_as_the_decoder_reads_it():
    engine = make()
    records, *_ = watch(engine, "Hello", SamplingSettings(max_tokens=2, temperature=0))
    tokens = torch.tensor([records["token"].tolist()])
    with torch.no_grad():
        output = engine.decoder.eval()(tokens[:, :-1])
    logs = output.logits[0].log_softmax(-1)
    expected = -logs.gather(-1, tokens[0, 1:, None])[:, 0]
    np.testing.assert_allclose(records["surprise"][1:], expected, atol=1e-5)
    assert np.isnan(records["surprise"][0])
    entropy = torch.special.entr(logs.exp()).sum(-1)
    np.testing.assert_allclose(records["entropy"][1:], entropy, atol=1e-5)
    read = records[records["read"]]
    for layer, stats in enumerate(output.router_stats):
        assert read["experts"][:, layer].tolist() == stats.indices.tolist()
        np.testing.assert_allclose(read["shares"][:, layer], stats.probabilities, atol=1e-6)
    top = logs.exp().topk(3)  # the stream after the last layer is what the head reads
    assert read["lens"][:, -1].tolist() == top.indices.tolist()
    assert (records[-1]["experts"] == NO_EXPERT).all()
    greedy = records[-1]
    assert greedy["after"][0] == greedy["token"]


def test_a_hand_in_the_routing_is_in_the_records():
    steering = Steering({1: (0, 3)}, {0: (2,)})
    records, _, _, watched = watch(
        make(), "Hello", SamplingSettings(max_tokens=9), steering=steering
    )
    read = records[records["read"]]
    assert not np.isin(read["experts"][:, 1], [0, 3]).any()
    assert (read["experts"][:, 0] == 2).any(-1).all()
    assert (watched.header.masked, watched.header.forced) == (("1:0", "1:3"), ("0:2",))
    with pytest.raises(UserError, match="layer 1 has the experts"):
        WatchedText(make(), "", SamplingSettings(), steering=Steering({1: (9,)}))


def test_dense_models_and_constraints_are_watched():
    sampling = SamplingSettings.model_validate({"max_tokens": 4, "choices": ["yes", "no"]})
    records, *_ = watch(make(feedforward=DENSE), "a", sampling)
    assert records["experts"].shape[-1] == 0
    own = records[records["generated"]]
    assert own["allowed"][0] == 2
    assert own["after_p"][0, :2].sum() == pytest.approx(1)
    assert np.isnan(own["after_p"][0, 2:]).all()
    assert own["before_p"][0, 0] < own["after_p"][0, 0]


def test_searches_with_beams_are_refused():
    with pytest.raises(UserError, match="beams"):
        WatchedText(make(), "", SamplingSettings.model_validate({"beams": {"width": 2}}))


def test_a_token_of_the_quickstart_takes_less_than_a_kilobyte():
    from coterie.foundation.traces import TraceHeader

    header = TraceHeader(experts=(8, 8, 8), experts_per_token=2)
    assert header.record_type().itemsize < 900


@pytest.mark.parametrize("attention", [GROUPED, GROUPED | {"window": 6}])
@pytest.mark.parametrize("kept", [3, 30])
def test_a_text_goes_on_from_any_of_its_tokens(attention, kept):
    """Untouched it is the same text, beyond the context (24) too; a hand changes what follows."""
    engine, sampling = make(attention), SamplingSettings(max_tokens=40, frequency_penalty=0.2)
    whole, text, _, first = watch(engine, "Hello", sampling)
    tokens = whole["token"].tolist()
    start = 5 + kept
    options = {"written": tokens[5:start]}
    again, same, _, text_again = watch(engine, tokens[:5], sampling, **options)
    assert (again["token"].tolist(), same) == (tokens, text)
    assert again["generated"].tolist() == whole["generated"].tolist()
    assert text_again.finish_reason == first.finish_reason == "length"
    for name in ("experts", "shares", "residual", "surprise"):
        np.testing.assert_allclose(again[name], whole[name], rtol=1e-4, atol=1e-6)
    most = int(whole["experts"][start - 1, 1, 0])
    steering = Steering({1: (most,)})
    other, *_ = watch(
        engine, "Hello", sampling, steering=steering, steered_from=start - 1, **options
    )
    assert other["token"].tolist()[:start] == tokens[:start]
    experts = other[other["read"]]["experts"][:, 1]
    assert not (experts[start - 1 :] == most).any(), "the token looked at is read with the hand"
    if kept == 3:  # in a later stretch all is read anew
        assert (experts[: start - 1] == whole["experts"][: start - 1, 1]).all()
    else:
        assert (experts[: start - 1] == most).any()
