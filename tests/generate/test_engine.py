"""The engine: streams, samples, stops, contexts that run over, and that it leaves no trace."""

import random

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models

from coterie.foundation.errors import CoterieError, UserError
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.settings import Characters
from coterie.tokenizer.subword import SubwordTokenizer

pytestmark = pytest.mark.any_device

CONTEXT = 24
TEXT = "abcdefgh ijklmnop.\nÄÖ€🎭"
LEARNED = {"position": {"kind": "learned"}}
WINDOWED = {"attention": {"kind": "grouped", "heads": 2, "window": 5}}
MOE = {
    "feedforward": {
        "kind": "moe", "experts_per_token": 2,
        "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
    }
}  # fmt: skip
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}
MODELS = {"rotary": {}, "learned": LEARNED, "window": WINDOWED, "moe": MOE}
LATENT = {
    "mla window": {"attention": MLA | {"window": 5}},
    "mla sinks": {"attention": MLA | {"window": 4, "sinks": 2}},
    "latent vectors": {
        "attention": {"kind": "latent_vectors", "heads": 2, "chunk": 5, "latents": 2}
    },
}
CACHES = [{"kind": "full", "room": 3}, {"kind": "window"}, {"kind": "none"}]


def make_engine(tokenizer=None, notify=None, seed=0, **changes) -> Engine:
    tokenizer = tokenizer or Characters().build([TEXT])
    values = {
        "layers": 2, "width": 16, "context": CONTEXT, "vocab_size": tokenizer.vocab_size,
        "attention": {"kind": "grouped", "heads": 2}, "dropout": 0.5,
    }  # fmt: skip
    torch.manual_seed(seed)
    decoder = DecoderSettings.model_validate(values | changes).build().double()
    with torch.no_grad():  # sharper than a fresh model, so that texts differ
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    decoder.register_forward_hook(lambda *call: _never(call[-1], tokenizer.end_of_text))
    return Engine(decoder, tokenizer, notify)


def _never(output, token: int):
    """Keep the model from choosing one token, so that texts have the length asked for."""
    if output.logits is not None:
        output.logits[..., token] -= 100.0
    return output


def settings(**values) -> SamplingSettings:
    return SamplingSettings.model_validate({"max_tokens": 12, "temperature": 1.0} | values)


PROMPTS = ("abc", "", "abcdefgh" * 5)
# Every model and every prompt by default; each with each in `make test-all`.
WAYS = [
    pytest.param(
        changes, prompt, id=f"{name}-{prompt[:3]}",
        marks=[] if (row + column) % len(PROMPTS) == 0 else pytest.mark.exhaustive,
    )
    for row, (name, changes) in enumerate(MODELS.items())
    for column, prompt in enumerate(PROMPTS)
]  # fmt: skip


@pytest.mark.parametrize(("changes", "prompt"), WAYS)
def test_every_cache_gives_the_same_text_even_beyond_the_context(changes, prompt):
    engine = make_engine(**changes)
    texts = [engine.generate(prompt, settings(max_tokens=40, cache=cache)) for cache in CACHES]
    assert texts[0].tokens == texts[1].tokens == texts[2].tokens
    for one, other in zip(texts[0].logprobs, texts[2].logprobs, strict=True):
        assert abs(one - other) < 1e-9
    assert len(set(texts[0].tokens)) > 2  # a text, not one token over and over


@pytest.mark.parametrize("changes", LATENT.values(), ids=LATENT)
def test_every_cache_of_latents_gives_the_same_text_even_beyond_the_context(changes):
    engine = make_engine(**changes, layers=1)
    texts = [engine.generate("abc", settings(max_tokens=28, cache=cache)) for cache in CACHES]
    assert texts[0].tokens == texts[1].tokens == texts[2].tokens
    assert len(set(texts[0].tokens)) > 2


def test_pieces_add_up_to_the_generation():
    engine = make_engine()
    pieces = list(engine.stream("abc", settings(seed=4)))
    whole = engine.generate("abc", settings(seed=4))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(piece.token for piece in pieces) == whole.tokens
    assert tuple(piece.logprob for piece in pieces) == whole.logprobs
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == whole.finish_reason
    assert whole.text == engine.tokenizer.decode(
        [token for token in whole.tokens if token != engine.tokenizer.end_of_text]
    )


def test_logprobs_are_those_of_the_model():
    engine = make_engine()
    made = engine.generate("abc", settings(temperature=0.5, top_k=3, repetition_penalty=1.5))
    tokens = torch.tensor([engine.tokenizer.encode("abc") + list(made.tokens)])
    with torch.no_grad():
        logits = engine.decoder.eval()(tokens.to(next(engine.decoder.parameters()).device))
        logits = logits.logits.cpu()
    expected = logits.log_softmax(-1)[0, 2:-1].gather(-1, tokens[0, 3:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(made.logprobs, dtype=expected.dtype), expected)


def test_the_same_seed_gives_the_same_text_whatever_else_is_in_the_batch():
    engine = make_engine(**MOE)
    together = engine.generate_samples("abc", 4, settings(seed=10, max_tokens=20))
    alone = [engine.generate("abc", settings(seed=10 + i, max_tokens=20)) for i in range(4)]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert len({each.text for each in together}) > 1


def test_samples_that_end_early_leave_the_others_as_they_were():
    engine = make_engine()
    stop = settings(seed=3, stop=["a", "b", "c", "d"], max_tokens=40)
    together = engine.generate_samples("abc", 6, stop)
    assert len({len(each.tokens) for each in together}) > 1
    for i, each in enumerate(together):
        assert each.tokens == engine.generate("abc", settings(
            seed=3 + i, stop=["a", "b", "c", "d"], max_tokens=40
        )).tokens  # fmt: skip


def test_a_stop_text_ends_the_text_before_itself():
    engine = make_engine()
    free = engine.generate("abc", settings(temperature=0, max_tokens=40))
    stop = free.text[5:8]
    cut = engine.generate("abc", settings(temperature=0, max_tokens=40, stop=[stop]))
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert stop not in cut.text
    assert len(cut.tokens) < len(free.tokens)


def test_bytes_come_out_as_whole_characters():
    engine = make_engine(tokenizer=Bytes().build())
    wish = iter("Ä€🎭x".encode())
    engine.decoder.register_forward_hook(lambda *call: _force(call[-1], next(wish)))
    pieces = [piece.text for piece in engine.stream("a", settings(temperature=0, max_tokens=10))]
    assert pieces == ["", "Ä", "", "", "€", "", "", "", "🎭", "x"]


def test_an_unfinished_character_at_the_end_is_marked():
    engine = make_engine(tokenizer=Bytes().build())
    wish = iter("a€".encode()[:-1])
    engine.decoder.register_forward_hook(lambda *call: _force(call[-1], next(wish)))
    assert engine.generate("a", settings(temperature=0, max_tokens=3)).text == "a�"


def _force(output, token: int):
    """Make the model want one token."""
    output.logits[:, -1] = 0.0
    output.logits[:, -1, token] = 9.0
    return output


def test_the_end_of_text_token_ends_the_text():
    engine = make_engine()
    end = engine.tokenizer.end_of_text
    wish = iter([engine.tokenizer.encode("h")[0], end])
    engine.decoder.register_forward_hook(lambda *call: _force(call[-1], next(wish)))
    made = engine.generate("abc", settings(temperature=0))
    assert (made.text, made.finish_reason, made.tokens[-1]) == ("h", "end", end)


def test_an_empty_prompt_begins_a_new_document():
    engine = make_engine()
    assert engine.encode_prompt("") == [engine.tokenizer.end_of_text]
    assert engine.generate("", settings()).prompt_tokens == 1


def test_a_long_prompt_is_cut_from_the_left_with_a_notice():
    said: list[str] = []
    engine = make_engine(notify=said.append)
    tokens = engine.encode_prompt("abcd" * 10)
    assert tokens == engine.tokenizer.encode("abcd" * 6)
    assert said == ["The prompt has 40 tokens; the model sees the last 24 of them."]


def test_a_windowed_rotary_model_reads_a_long_prompt_whole():
    said: list[str] = []
    engine = make_engine(notify=said.append, **WINDOWED)
    assert len(engine.encode_prompt("abcd" * 10)) == 40
    assert said == []


def test_unknown_characters_are_told():
    said: list[str] = []
    make_engine(notify=said.append).encode_prompt("a本b")
    assert "1 character" in said[0]


@pytest.mark.parametrize("training", [True, False])
def test_generating_leaves_no_trace(training):
    engine = make_engine(**MOE)
    decoder = engine.decoder.train(training)
    decoder.get_submodule(next(name for name, _ in decoder.named_children())).train(not training)
    modes = {name: module.training for name, module in decoder.named_modules()}
    weights = {name: each.clone() for name, each in decoder.state_dict().items()}
    torch.manual_seed(5)
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    stream = engine.stream("abc", settings(max_tokens=5))
    for _ in stream:
        assert {name: module.training for name, module in decoder.named_modules()} == modes
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1][1], np.random.get_state()[1])
    assert random.getstate() == before[2]
    for name, each in decoder.state_dict().items():
        assert torch.equal(each, weights[name]), name


def test_training_goes_on_after_generating():
    engine = make_engine(**MOE)
    engine.generate("abc", settings(max_tokens=CONTEXT))
    device = next(engine.decoder.parameters()).device
    tokens = torch.randint(0, 10, (2, CONTEXT), device=device)
    engine.decoder.train()(tokens, tokens).losses.sum().backward()
    assert all(p.grad is not None for p in engine.decoder.parameters() if p.requires_grad)


def test_dropout_is_off_while_generating():
    engine = make_engine()
    engine.decoder.train()
    assert engine.generate("abc", settings(seed=2)) .tokens == engine.generate(
        "abc", settings(seed=2)
    ).tokens  # fmt: skip


def test_a_tokenizer_larger_than_the_model_is_refused():
    with pytest.raises(UserError, match="257 tokens but the model only 10"):
        make_engine(tokenizer=Bytes().build(), vocab_size=10)


def test_rows_beyond_the_tokenizer_are_never_chosen():
    tokenizer = Characters().build(["ab"])
    engine = make_engine(tokenizer=tokenizer, vocab_size=64)
    made = engine.generate("ab", settings(max_tokens=30, temperature=5.0))
    assert max(made.tokens) < tokenizer.vocab_size


def test_a_broken_model_is_told_and_not_sampled_from():
    engine = make_engine()
    with torch.no_grad():
        next(iter(engine.decoder.parameters())).fill_(float("nan"))
    with pytest.raises(CoterieError, match="not finite"):
        engine.generate("abc", settings())


def test_no_samples_are_refused():
    with pytest.raises(UserError, match="At least one sample"):
        make_engine().generate_samples("abc", 0, settings())


WORDS = ["<s>", "</s>", "▁ba", "▁and", "▁", *"abdn", "<0xC3>", "<0xA9>"]


def llama_like() -> SubwordTokenizer:
    """Return a tokenizer that begins texts with <s> and strips their first blank."""
    rules = tokenizers.Tokenizer(
        models.BPE({word: number for number, word in enumerate(WORDS)}, [], byte_fallback=True)
    )
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    rules.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    rules.add_special_tokens(["<s>", "</s>"])
    return SubwordTokenizer(rules, conventions=Conventions(("</s>",), "<s>"))


def saying(*words: str, **changes) -> Engine:
    """Return an engine that says these words, whatever it is asked."""
    engine = make_engine(llama_like(), **changes)
    said = iter(words)

    def force(module, arguments, output):
        output.logits[..., WORDS.index(next(said))] += 1e4
        return output

    engine.decoder.register_forward_hook(force)
    return engine


@pytest.mark.parametrize(
    ("prompt", "words", "pieces"),
    [
        ("ba", ["▁and", "▁ba"], [" and", " ba"]),
        ("ba", ["a", "▁and"], ["a", " and"]),
        ("", ["▁and", "▁ba"], ["and", " ba"]),
        ("<s>", ["▁and", "▁ba"], ["and", " ba"]),
        ("ba", ["<0xC3>", "<0xA9>", "a"], ["", "é", "a"]),
    ],
)
def test_text_is_decoded_with_what_stands_before_it(prompt, words, pieces):
    """A decoder that strips the blank at a text's beginning strips none in its middle."""
    length = settings(max_tokens=len(words), temperature=0)
    assert [piece.text for piece in saying(*words).stream(prompt, length)] == pieces
    made = saying(*words).generate(prompt, length)
    tokenizer = llama_like()
    begun = tokenizer.encode(prompt)[prompt == "<s>" :]
    assert tokenizer.decode([*begun, *made.tokens]) == tokenizer.decode(begun) + made.text


def test_a_stop_text_that_begins_with_a_blank_is_met():
    made = saying("a", "▁and", "b").generate("ba", settings(stop=[" and"], temperature=0))
    assert (made.text, made.finish_reason) == ("a", "stop")


def test_one_token_begins_the_text_however_the_prompt_begins():
    engine = make_engine(llama_like())
    assert engine.encode_prompt("ba")[0] == 0
    assert engine.encode_prompt("ba").count(0) == 1
    assert engine.encode_prompt("<s>ba").count(0) == 1
    assert engine.encode_prompt("") == [0]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("prompt", ["ba", "ba and " * 12])
def test_the_token_that_begins_texts_stays_first(prompt, cache):
    """In a prompt that is cut, and in every new stretch of a text beyond the context."""
    engine, notices = make_engine(llama_like()), []
    engine = Engine(engine.decoder, engine.tokenizer, notices.append)
    read = []
    engine.decoder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    tokens = engine.encode_prompt(prompt)
    whole = engine.tokenizer.encode(prompt)
    assert tokens == [0, *whole[-(CONTEXT - 1) :]]
    assert bool(notices) == (len(whole) >= CONTEXT)
    engine.generate(prompt, settings(max_tokens=40, cache=cache))
    begins = [given[0].tolist() for given in read if given.shape[1] > 1]
    assert len(begins) >= 3
    assert all(each[0] == 0 for each in begins)


def test_a_stop_text_ends_nothing_before_the_least_number_of_tokens():
    engine = make_engine()
    free = engine.generate("abc", settings(temperature=0, max_tokens=40))
    stop = free.text[5:7]
    late = engine.generate(
        "abc", settings(temperature=0, max_tokens=40, stop=[stop], min_tokens=9)
    )  # fmt: skip
    assert late.text.startswith(free.text[:9])
    assert len(late.tokens) > 9


def test_the_likeliest_are_told_with_each_token():
    made = make_engine().generate("abc", settings(temperature=0, logprobs=3))
    assert [top[0] for top in made.top_logprobs] == list(
        zip(made.tokens, made.logprobs, strict=True)
    )
    assert {len(top) for top in made.top_logprobs} == {3}
