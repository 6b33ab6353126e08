"""Reading: when a stretch ends, when nothing may be kept, and that one pass serves training."""

import pytest
import torch

from coterie.generate.cache import (
    CacheStack,
    FullCacheSettings,
    NoCacheSettings,
    WindowCacheSettings,
)
from coterie.generate.session import (
    DecodeSession,
    cache_specs,
    evaluation,
    latest,
    position_limit,
)
from coterie.model import DecoderSettings
from coterie.model.context import ForwardContext
from coterie.model.position import PositionPart, Rotation

CONTEXT = 16
WINDOW = {"kind": "grouped", "heads": 2, "window": 4}
LATENT = {"kind": "latent_vectors", "heads": 2, "chunk": 4, "latents": 2}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}


class Growing(PositionPart):
    """Turns that depend on how long the text is, beyond some length; they count their calls."""

    def __init__(self, stable: int) -> None:
        super().__init__()
        self.stable = stable
        self.spans = []

    def rotation(self, span):
        self.spans.append((span.start, span.length))
        stop = span.start + span.length
        assert stop <= self.stable or span.start == 0, "something kept was turned otherwise"
        slower = max(stop / self.stable, 1.0)
        at = torch.arange(span.start, stop, dtype=torch.float64)[:, None, None] / slower

        def turn(x):
            one, other = x.chunk(2, -1)
            return torch.cat(
                (one * at.cos() - other * at.sin(), one * at.sin() + other * at.cos()), -1
            )

        return Rotation(turn)


def build(attention=None, stable=None, **changes):
    values = {
        "layers": 2, "width": 16, "context": CONTEXT, "vocab_size": 11,
        "attention": attention or {"kind": "grouped", "heads": 2},
        "initial": {"std": 0.3, "outputs": "plain"},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(values | changes).build(
        torch.Generator().manual_seed(0)
    )
    if stable is not None:
        decoder.position = Growing(stable)
    return decoder.double()


def tokens_of(length: int):
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(length))


KEPT = {
    "all": (None, FullCacheSettings(room=2)), "window": (WINDOW, WindowCacheSettings()),
    "mla": (MLA, FullCacheSettings(room=2)), "latent": (LATENT, WindowCacheSettings()),
}  # fmt: skip


@pytest.mark.parametrize(("attention", "settings"), KEPT.values(), ids=KEPT)
def test_beyond_stable_positions_nothing_kept_is_used(attention, settings):
    decoder, tokens = build(attention, stable=10, layers=1), tokens_of(20)
    cached, anew = DecodeSession(decoder, settings), DecodeSession(decoder, NoCacheSettings())
    before = 0
    for start, size in [(0, 3), *((at, 1) for at in range(3, 20))]:
        piece = tokens[:, start : start + size]
        decoder.position.spans.clear()
        got = cached.read(piece)
        spans = list(decoder.position.spans)
        torch.testing.assert_close(got, anew.read(piece), rtol=0, atol=1e-12)
        known = decoder.position.spans[-1][1]  # what no cache reads
        assert known <= CONTEXT
        anew_from_here = known > 10 or known < before + size  # beyond, or a new stretch begins
        assert spans == [(0, known) if anew_from_here else (known - size, size)]
        before = known
        assert (cached.cache_nbytes > 0) == (known <= 10)


def test_a_stretch_that_fits_again_is_cached_again():
    decoder, tokens = build(stable=9, layers=1), tokens_of(30)
    session, held = DecodeSession(decoder, FullCacheSettings()), []
    for at in range(30):
        session.read(tokens[:, at : at + 1])
        held.append(session.cache_nbytes > 0)
    # Of 16 positions 9 are stable; a new stretch begins with 8 of them.
    assert held == [True] * 9 + [False] * 7 + [True] * 2 + [False] * 7 + [True] * 2 + [False] * 3


def test_rows_can_be_selected_while_nothing_is_kept():
    decoder, tokens = build(stable=4), tokens_of(9)
    cached, anew = (
        DecodeSession(decoder, FullCacheSettings()),
        DecodeSession(decoder, NoCacheSettings()),
    )
    for session in (cached, anew):
        session.read(tokens[:, :8])
        session.select([1, 1, 0])
    last = tokens[[1, 1, 0], 8:]
    torch.testing.assert_close(cached.read(last), anew.read(last), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("attention", "position", "limit"),
    [
        (WINDOW, "rotary", None),
        (WINDOW, "none", None),
        (MLA | {"window": 4}, "rotary", None),
        (WINDOW | {"sinks": 1}, "rotary", CONTEXT),
        (MLA | {"window": 4, "sinks": 1}, "rotary", CONTEXT),
        (MLA, "rotary", CONTEXT),
        (LATENT, "rotary", CONTEXT),
        (WINDOW, "learned", CONTEXT),
    ],
)
def test_a_text_goes_on_for_ever_only_where_every_layer_forgets(attention, position, limit):
    assert position_limit(build(attention, position=position)) == limit
    assert position_limit(build(attention, stable=5)) == CONTEXT


@torch.inference_mode()
def test_memory_of_a_latent_cache_is_that_of_its_formula():
    sizes = {"full": {"kind": "grouped", "heads": 2}, "latent": LATENT, "mla": MLA}
    held = {}
    for name, attention in sizes.items():
        session = DecodeSession(build(attention, context=256), FullCacheSettings(room=256))
        session.read(tokens_of(256))
        held[name] = session.cache_nbytes // (2 * 2 * 8)  # values of one layer and row
    # Two tensors of 16 channels; half as many summaries as tokens; a latent of 6 and a key of 4.
    assert held == {"full": 2 * 16 * 256, "latent": 2 * 16 * 128, "mla": (6 + 4) * 256}


def test_generating_leaves_nothing_that_training_could_stumble_over():
    for attention in (MLA, LATENT, WINDOW | {"sinks": 2}):
        decoder, tokens = build(attention), tokens_of(12)
        with evaluation(decoder):
            decoder(tokens)
        decoder.train()
        decoder(tokens, tokens).losses.sum().backward()
        assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_the_latest_tokens_begin_with_the_one_that_begins_texts():
    assert latest([7, 1, 2, 3], 4, begin=7) == [7, 1, 2, 3]
    assert latest([7, 1, 2, 3], 3, begin=7) == [7, 2, 3]
    assert latest([7, 1, 2, 3], 2, begin=7) == [7, 3]
    assert latest([7, 1, 2, 3], 1, begin=7) == [3]  # no room for both
    assert latest([1, 7, 2, 3], 3, begin=7) == [7, 2, 3]
    assert latest([1, 2, 7, 3], 2, begin=5) == latest([1, 2, 7, 3], 2) == [7, 3]


STRUCTURE = {"kind": "structure", "kinds": {"scene": {
    "opening": "<C>", "closing": "</C>", "opening_id": 3, "closing_id": 4, "follow": "count",
    "bound": 3,
}}}  # fmt: skip


@pytest.mark.parametrize("case", ["all", "window", "structure", "none"])
def test_tokens_taken_back_leave_no_trace(case):
    """Rows of unequal length take unequally many back, as after guesses that were wrong."""
    attention, settings = KEPT.get(case, (None, FullCacheSettings()))
    more = {"additive": [STRUCTURE]} if case == "structure" else {}
    decoder = build(attention, **more)
    settings = NoCacheSettings() if case == "none" else settings
    one, other = (DecodeSession(decoder, settings, rollback=3) for _ in range(2))
    for session in (one, other):
        session.read([[1, 2, 3, 4, 5], [6, 3, 7]])
    one.read([[8, 3, 9], [3, 2, 1]])
    one.truncate([1, 3])
    other.read([[8, 3], []])
    got, wanted = (session.read([[4], [5]]) for session in (one, other))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_what_is_carried_is_that_of_reading_token_by_token():
    decoder, tokens = build(additive=[STRUCTURE]), torch.tensor([[1, 3, 2, 5], [3, 3, 0, 0]])
    stack = FullCacheSettings().build(cache_specs(decoder))
    with torch.no_grad():
        for at in range(4):
            lengths = (1, int(at < 2))
            context = ForwardContext(cache=stack, lengths=lengths)
            decoder(tokens[:, at : at + 1], context=context)
        found = decoder.carried(tokens, (4, 2), CacheStack([]))
    assert found.keys() == stack.state.keys() != set()
    for name, state in found.items():
        assert torch.equal(state, stack.state[name])
