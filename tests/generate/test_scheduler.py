"""Requests that join, leave, fail and are cancelled: each has the text that it has alone."""

import copy
import functools
import random

import pytest
import torch

from coterie.foundation.errors import CoterieError, UserError
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate import memory as memory_module
from coterie.generate.passes import EagerPass, NativePass
from coterie.generate.passes.recorded import RecordedPass
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters

pytestmark = pytest.mark.any_device

CONTEXT = 16
TEXT = "abcdefghijklmnop"
MODELS = {
    "all": {},
    "window": {"attention": {"kind": "grouped", "heads": 2, "window": 5}},
    "dynamic": {"position": {"kind": "rotary", "scaling": {
        "kind": "dynamic", "factor": 2.0, "original_context": 9}}},
    "latent": {"attention": {"kind": "latent_vectors", "heads": 2, "chunk": 5, "latents": 2}},
    "moe": {"feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2}},
}  # fmt: skip
CACHES = [{"kind": "full", "room": 3}, {"kind": "window"}, {"kind": "none"},
          {"kind": "window", "size": 4}]  # fmt: skip


class Watching(EagerPass):
    """Counts the real tokens of each call; may be told to break some."""

    def __init__(self, decoder) -> None:
        super().__init__(decoder)
        self.calls, self.poison, self.raises = [], None, None
        self.never = []  # tokens that the model is kept from choosing

    def read(self, call):
        lengths = call.lengths or (call.tokens.shape[1],) * call.tokens.shape[0]
        self.calls.append(lengths)
        if self.raises is not None and (call.tokens == self.raises).any():
            raise RuntimeError("the device has gone")
        logits = super().read(call)
        logits[..., self.never] -= 100.0
        if self.poison is not None:
            logits[(call.tokens == self.poison).any(1)] = float("nan")
        return logits


@functools.cache
def decoder_of(name: str, context: int = CONTEXT):
    tokenizer = Characters().build([TEXT])
    values = {
        "layers": 1, "width": 16, "context": context, "vocab_size": tokenizer.vocab_size,
        "attention": {"kind": "grouped", "heads": 2},
    }  # fmt: skip
    torch.manual_seed(4)
    decoder = DecoderSettings.model_validate(values | MODELS[name]).build().double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return decoder, tokenizer


def make_engine(name="all", context=CONTEXT, max_batch=3, ends=False):
    decoder, tokenizer = decoder_of(name, context)
    watching = Watching(decoder)
    watching.never = [] if ends else [tokenizer.end_of_text]
    return Engine(decoder, tokenizer, max_batch=max_batch, passes=[watching]), watching


def settings(**values) -> SamplingSettings:
    return SamplingSettings.model_validate({"max_tokens": 8, "temperature": 1.0} | values)


def draw_request() -> Request:
    prompt = "".join(random.choices(TEXT, k=random.randint(0, 18)))
    sampling = settings(
        max_tokens=random.randint(1, 6), temperature=random.choice([0, 0.7, 1.0]),
        top_k=random.choice([None, 5]), stop=random.choice([(), ("a", "bc")]),
        cache=random.choices(CACHES, weights=[3, 1, 1, 1])[0],
        repetition_penalty=random.choice([1.0, 1.3]),
    )  # fmt: skip
    return Request(prompt, sampling, random.randrange(100))


def written(pieces):
    return [(piece.text, piece.token, piece.finish_reason) for piece in pieces]


def mix(engine, pool, alone, near=1e-9) -> None:
    """Submit requests at random moments, cancel some, and compare what the others say."""
    coming = [Request(**vars(request)) for request in random.choices(pool, k=random.randint(2, 6))]
    expected = {id(new): alone[key(new)] for new in coming}
    pieces = {id(new): [] for new in coming}
    cancelled, everyone = set(), list(coming)
    while coming or not engine.idle:
        while coming and random.random() < 0.4:
            engine.submit(coming.pop())
        if random.random() < 0.05:
            gone = random.choice(everyone)
            if engine.cancel(gone):
                cancelled.add(id(gone))
        for request, piece in engine.step():
            assert id(request) not in cancelled
            pieces[id(request)].append(piece)
    for number, whole in expected.items():
        got = pieces[number]
        whole = whole[: len(got)] if number in cancelled else whole
        assert written(got) == written(whole)
        for one, other in zip(got, whole, strict=True):
            assert abs(one.logprob - other.logprob) < near


def key(request):
    return request.prompt, request.seed, repr(request.sampling)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mixes", [1, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_text_is_the_same_alone_and_among_others(name, mixes):
    engine, _ = make_engine(name, ends=True)
    pool = []
    for number in range(mixes):
        if number % 10 == 0:
            pool = [draw_request() for _ in range(4)]
            alone = {
                key(request): [piece for _, piece in engine.run([request])] for request in pool
            }
        mix(engine, pool, alone)
        assert engine.idle


def test_a_prompt_is_read_once_for_all_of_its_samples():
    engine, watching = make_engine(max_batch=8)
    engine.generate_samples("abcdefg", 5, settings(max_tokens=3))
    assert watching.calls == [(7,), (1,) * 5, (1,) * 5]
    watching.calls.clear()
    requests = [Request(prompt, settings(max_tokens=1)) for prompt in ("abc", "abc", "de", "fgh")]
    assert len(engine.generate_many(requests)) == 4
    assert watching.calls == [(3, 2, 3)]  # short prompts are read together, equal ones once


def test_a_long_prompt_does_not_keep_others_waiting():
    engine, watching = make_engine(context=2048)
    short, long = Request("abc", settings()), Request("abcdefgh" * 140, settings(max_tokens=1))
    engine.submit(short)
    engine.step()
    engine.submit(long)
    watching.calls.clear()
    got = [[request for request, _ in engine.step()] for _ in range(3)]
    assert got == [[short], [short], [long, short]]
    assert watching.calls == [(512,), (1,), (512,), (1,), (96,), (1,)]


def test_no_more_run_than_may_and_the_first_come_are_the_first_served():
    engine, watching = make_engine(max_batch=2)
    requests = [Request("abcd"[:n], settings(max_tokens=n, seed=n)) for n in (3, 1, 4)]
    ended = [request for request, piece in engine.run(requests) if piece.finish_reason]
    assert ended == [requests[1], requests[0], requests[2]]
    assert max(map(len, watching.calls)) == 2


def test_a_cancelled_request_says_nothing_more_wherever_it_is():
    engine, _ = make_engine(context=2048, max_batch=2)
    running, reading, waiting, other = (
        Request(prompt, settings(seed=seed))
        for seed, prompt in enumerate(("abc", "ab" * 400, "cd", "ef"))
    )
    engine.submit(running)
    engine.step()
    for each in (reading, waiting, other):
        engine.submit(each)
    engine.step()
    assert all(engine.cancel(each) for each in (running, reading, waiting))
    assert not engine.cancel(running)
    said = []
    while not engine.idle:
        said += engine.step()
    assert {id(request) for request, _ in said} == {id(other)}
    assert written(piece for _, piece in said) == written(piece for _, piece in engine.run([other]))


class Sabotage:
    """A constraint that goes wrong at its third token."""

    def __init__(self, how: str) -> None:
        self.how, self.accepted = how, 0

    def mask(self, logits):
        if self.accepted == 2 and self.how == "raises":
            raise ZeroDivisionError("my own fault")
        return logits - torch.inf if self.accepted == 2 and self.how == "masks all" else logits

    def accept(self, token):
        self.accepted += 1

    def rollback(self, count):
        self.accepted -= count


@pytest.mark.parametrize(
    ("how", "error"), [("raises", ZeroDivisionError), ("masks all", UserError)]
)
def test_a_request_that_fails_ends_alone(how, error):
    engine, _ = make_engine()
    good = [Request(prompt, settings(seed=seed)) for seed, prompt in enumerate(("abc", "de"))]
    bad = Request("fgh", settings(), constraints=(Sabotage(how),))
    first, failed, second = engine.generate_many([good[0], bad, good[1]])
    assert failed.finish_reason == "error"
    assert isinstance(failed.error, error)
    assert len(failed.tokens) == 2
    for made, request in ((first, good[0]), (second, good[1])):
        assert made.error is None
        assert made.tokens == engine.generate_many([request])[0].tokens
    assert list(engine.run([bad]))[-1][1].finish_reason == "error"


def test_a_model_that_overflows_in_one_text_ends_that_text():
    engine, watching = make_engine()
    poison = engine.tokenizer.encode("p")[0]
    watching.poison = poison
    good, bad = Request("abc", settings(seed=1)), Request("abp", settings())
    made = engine.generate_many([good, bad])
    assert isinstance(made[1].error, CoterieError)
    assert "not finite" in str(made[1].error)
    assert made[0].error is None or poison in made[0].tokens


def test_a_failing_pass_ends_those_that_it_served_and_no_others():
    engine, watching = make_engine(context=2048)
    watching.raises = engine.tokenizer.encode("p")[0]
    good = Request("abc", settings(temperature=0))
    engine.submit(good)
    engine.step()
    bad = Request("p" * 600, settings())
    engine.submit(bad)
    said = {id(good): [], id(bad): []}
    while not engine.idle:
        for request, piece in engine.step():
            said[id(request)].append(piece)
    assert [piece.finish_reason for piece in said[id(bad)]] == ["error"]
    assert "device" in str(said[id(bad)][0].error)
    assert len(said[id(good)]) >= 1


def test_a_cache_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: 100_000)
    engine, watching = make_engine(context=2048)
    refused, made = engine.generate_many(
        [Request("abc", settings(max_tokens=500)), Request("abc", settings(max_tokens=8))]
    )
    assert made.error is None
    # 512 positions of two tensors of 16 channels in float64; of 256 there is room.
    assert "0.000131 GB for 503 positions" in str(refused.error)
    assert "max_tokens=248, or cache=window cache.size=223" in refused.error.hint
    assert max(map(len, watching.calls)) == 1


def test_no_more_texts_run_than_memory_holds(monkeypatch):
    engine, watching = make_engine(max_batch=6)
    groups = engine._submitted
    monkeypatch.setattr(
        memory_module, "free_bytes",
        lambda device: 20_000 - sum(group.session.cache_nbytes for group in groups._groups),
    )  # fmt: skip
    cache = {"kind": "full", "room": 16}
    for seed in range(6):
        engine.submit(Request("abcd", settings(seed=seed, cache=cache)))
    while not engine.idle:
        assert all(piece.error is None for _, piece in engine.step())
    assert max(map(len, watching.calls)) == 4  # of 4,096 bytes each in nine tenths of 20,000


def test_prompts_that_cannot_be_read_are_refused_and_the_others_served():
    engine, _ = make_engine()
    made = engine.generate_many([Request([], settings()), Request([99], settings()),
                                 Request([1, 2], settings())])  # fmt: skip
    assert [each.finish_reason == "error" for each in made] == [True, True, False]
    assert "99" in str(made[1].error)
    with pytest.raises(UserError, match="no request"):
        list(engine.run([]))
    with pytest.raises(UserError, match="At least one text"):
        make_engine(max_batch=0)


def test_a_prompt_of_ten_megabytes_is_cut_like_any_other():
    engine, watching = make_engine()
    made = engine.generate("abcdefgh" * (10 << 17), settings(max_tokens=2))
    assert made.prompt_tokens == CONTEXT
    assert watching.calls[0] == (CONTEXT,)


def test_two_streams_do_not_disturb_each_other():
    engine, _ = make_engine()
    short = settings(max_tokens=3)
    alone = [list(engine.stream(prompt, short)) for prompt in ("abc", "de")]
    streams = [engine.stream(prompt, short) for prompt in ("abc", "de")]
    together = list(zip(*streams, strict=False))
    for number, whole in enumerate(alone):
        got = [each[number] for each in together]
        assert written(got) == written(whole[: len(got)])


@pytest.mark.parametrize("name", ["all", "moe"])
def test_among_others_a_text_is_the_same_wherever_its_margin_exceeds_rounding(name):
    """In float32: greedy tokens agree up to the first whose lead is at most 1e-4."""
    decoder, tokenizer = decoder_of(name, 64)
    engine = Engine(copy.deepcopy(decoder).float(), tokenizer, max_batch=5)
    greedy = settings(max_tokens=24, temperature=0, logprobs=2)
    asked = [Request(TEXT[at : at + 1 + at % 4], greedy) for at in range(12)]
    compared = 0
    for request, among in zip(asked, engine.generate_many(asked), strict=True):
        (alone,) = engine.generate_many([request])
        for number, (first, second) in enumerate(top for top in alone.top_logprobs):
            if first[1] - second[1] <= 1e-4:
                break
            assert among.tokens[number] == alone.tokens[number]
            assert among.logprobs[number] == pytest.approx(alone.logprobs[number], abs=1e-5)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize("name", ["all", "moe"])
def test_in_a_batch_of_the_same_shape_a_text_is_equal_bit_for_bit(name):
    decoder, tokenizer = decoder_of(name)
    engine = Engine(copy.deepcopy(decoder).float(), tokenizer)
    mine = Request("abc", settings(max_tokens=4, temperature=0))
    one, two = (
        engine.generate_many([mine, Request(other, mine.sampling)])[0] for other in ("defg", "hijk")
    )
    alone = engine.generate_many([mine])[0]
    assert one.tokens == two.tokens == alone.tokens
    assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    if name == "moe":  # how many tokens an expert gets depends on the others
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)
    else:
        assert one.logprobs == two.logprobs


class OneByOne:
    """A pass that goes no further than it is asked to."""

    def __init__(self, inner) -> None:
        self.refuses, self.read = inner.refuses, inner.read


def recorded(decoder) -> RecordedPass:
    """Return a pass whose steps run as they are, where a device would repeat them."""

    def record(step):
        for _ in range(3):
            step()
        return step

    return RecordedPass(decoder, record=record)


@pytest.mark.parametrize("name", ["all", "moe"])
@pytest.mark.parametrize("way", [NativePass, recorded])
@pytest.mark.parametrize("mixes", [6, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_tokens_chosen_several_at_a_time_are_the_same(name, way, mixes):
    decoder, tokenizer = decoder_of(name, 40)
    decoder = copy.deepcopy(decoder).float()
    native, eager = way(decoder), EagerPass(decoder)
    calls, steps = [], native.steps

    def counted(call, rules, most):
        made = steps(call, rules, most)
        calls.append([len(each.tokens) for each in made or ()])
        return made

    native.steps = counted
    single = Engine(decoder, tokenizer, passes=[OneByOne(native), eager])
    several = Engine(decoder, tokenizer, max_batch=3, passes=[native, eager])
    for _ in range(mixes):
        pool = [draw_request() for _ in range(2)]
        pool += [
            Request(each.prompt, settings(max_tokens=number, temperature=number % 2), number)
            for number, each in enumerate(pool + pool + pool, start=8)
        ]
        alone = {key(each): [piece for _, piece in single.run([each])] for each in pool}
        mix(several, pool, alone, 1e-5)
    calls = [each for each in calls if each]
    assert max(map(max, calls)) > 2
    assert any(len(set(each)) > 1 for each in calls)  # one has ended before the others
