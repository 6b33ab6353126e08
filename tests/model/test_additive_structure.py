"""Structure embeddings: states by tags, against a reader that goes token by token."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import SettingsError
from coterie.generate.cache import FullCacheSettings
from coterie.model import DecoderSettings
from coterie.model.additive import StructureEmbedding
from coterie.model.context import ForwardContext
from coterie.model.position import Span

KINDS = {
    "speaker": {"opening": "<S>", "closing": "</S>", "opening_id": 0, "closing_id": 1,
                "follow": "name", "bound": 97},
    "scene": {"opening": "<C>", "closing": "</C>", "opening_id": 2, "closing_id": 3,
              "follow": "count", "bound": 3},
    "stage": {"opening": "<D>", "closing": "</D>", "opening_id": 4, "closing_id": 5},
}  # fmt: skip
SETTINGS = StructureEmbedding.model_validate({"kinds": KINDS})


def by_hand(tokens: list[int]) -> list[list[object]]:
    """Return (speaker, scene, stage) of each token; a speaker is known by the name's tokens."""
    found = []
    speaker, name, naming = None, [], False
    scene, in_scene, in_stage = 0, False, False
    for token in tokens:
        if token == 0:
            naming, name = True, []
        elif token == 1:
            speaker = tuple(name) if naming else speaker
            naming = False
        elif naming:
            name.append(token)
        scene += token == 2
        in_scene = token == 2 or (in_scene and token != 3)
        in_stage = token == 4 or (in_stage and token != 5)
        turn = 0 if scene == 0 else (scene - 1) % 3 + 1
        found.append(["inside" if naming else speaker, (turn, in_scene), in_stage])
    return found


def draw(rows: int, length: int, seed: int) -> torch.Tensor:
    """Return tokens of which half are tags."""
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randint(6, (rows, length), generator=generator)
    words = torch.randint(6, 9, (rows, length), generator=generator)
    return tags.where(torch.rand(rows, length, generator=generator) < 0.5, words)


def assert_same_partition(states: torch.Tensor, expected: list[object]) -> None:
    """Make sure that tokens share a state exactly where they share what stands for it."""
    meaning: dict[int, object] = {}
    for state, value in zip(states.tolist(), expected, strict=True):
        assert meaning.setdefault(state, value) == value
    assert len(set(meaning.values())) == len(meaning), "one meaning, one state"


@pytest.mark.parametrize("seed", range(3))
def test_states_are_those_of_a_reader_of_one_token_after_another(seed):
    roomy = {**KINDS, "speaker": KINDS["speaker"] | {"bound": 1 << 20}}  # no two names may meet
    part = StructureEmbedding.model_validate({"kinds": roomy}).build(1)
    tokens = draw(4, 60, seed)
    states, _ = part.states(tokens)
    assert int(states.min()) >= 0
    assert int(states.max()) < part.weight.shape[0]
    expected = [value for row in tokens.tolist() for value in by_hand(row)]
    flat = states.flatten(0, 1)
    for kind in range(3):
        assert_same_partition(flat[:, kind], [values[kind] for values in expected])
    kinds = [set(flat[:, kind].tolist()) for kind in range(3)]
    assert len(set.union(*kinds)) == sum(map(len, kinds)), "each kind has rows of its own"


@pytest.mark.parametrize("pieces", [[1] * 40, [7, 20, 13], [39, 1]])
def test_text_read_in_pieces_has_the_same_states(pieces):
    part = SETTINGS.build(8)
    tokens = draw(8, 40, 5)
    whole, end = part.states(tokens)
    state, found = None, []
    for piece in tokens.split(pieces, 1):
        states, state = part.states(piece, None, state)
        found.append(states)
    assert torch.equal(torch.cat(found, 1), whole)
    assert torch.equal(state[..., :4], end[..., :4])


def test_states_begin_anew_with_each_document():
    part = SETTINGS.build(8)
    tokens = draw(3, 50, 2)
    cuts = [[0, 13, 30], [0, 1, 49], [0, 25]]
    begins = torch.zeros_like(tokens)
    for row, starts in enumerate(cuts):
        for start in starts:
            begins[row, start:] = start
    states, _ = part.states(tokens, begins)
    for row, starts in enumerate(cuts):
        for start, end in zip(starts, [*starts[1:], 50], strict=True):
            alone, _ = part.states(tokens[row : row + 1, start:end])
            assert torch.equal(states[row, start:end], alone[0])


def test_the_vectors_of_all_kinds_are_added_up():
    part = SETTINGS.build(8).double()
    torch.nn.init.normal_(part.weight)
    tokens = draw(2, 20, 1)
    states, _ = part.states(tokens)
    added, _ = part.vectors(tokens, Span(0, 20, tokens.device))
    expected = sum(part.weight[states[..., kind]] for kind in range(3))
    torch.testing.assert_close(added, expected)


def test_long_names_differ_by_their_first_tokens_and_by_what_follows():
    part = StructureEmbedding.model_validate(
        {"kinds": {"speaker": KINDS["speaker"] | {"bound": 1 << 20}}}
    ).build(1)

    def name(*words: int) -> int:
        states, _ = part.states(torch.tensor([[0, *words, 1, 7]]))
        return int(states[0, -1, 0])

    long = [6] * 80
    others = [[7, *long[1:]], [*long[:40], 7, *long[41:]], [*long[:79], 7], long[:-1]]
    assert len({name(*words) for words in (long, *others)}) == 5
    assert name(6, 7) != name(7, 6)


STRUCTURED = {
    "additive": [{"kind": "structure", "kinds": KINDS}],
    "attention": {"kind": "grouped", "heads": 2, "window": 4},
}


def test_the_caches_of_generation_carry_and_reorder_the_states(make_decoder):
    decoder = make_decoder(**STRUCTURED)
    tokens = draw(3, 12, 4)
    cache = FullCacheSettings().build(
        [plan.attention.cache_spec() for plan in decoder.settings.plans()]
    )
    decoder(tokens[:, :6], context=ForwardContext(cache=cache))
    rows = torch.tensor([2, 0, 0])
    cache.select(rows)
    rest = tokens[rows, 6:].clone()
    rest[2] = draw(1, 6, 9)[0]
    read = torch.cat((tokens[rows, :6], rest), 1)
    for at in range(6):
        logits = decoder(rest[:, at : at + 1], context=ForwardContext(cache=cache)).logits
    torch.testing.assert_close(logits[:, -1], decoder(read).logits[:, -1], rtol=0, atol=1e-12)


def test_a_state_reaches_beyond_any_window(make_decoder):
    decoder = make_decoder(layers=1, **STRUCTURED)
    tokens = torch.full((2, 12), 7)
    tokens[:, 0], tokens[:, 2] = 0, 1
    tokens[1, 1] = 8  # another speaker, far outside the window of the last token
    logits = decoder(tokens).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_tags_without_tokens_are_refused_when_they_are_needed(make_settings):
    speaker = {"opening": "<S>", "closing": "</S>"}
    settings = make_settings(additive=[{"kind": "structure", "kinds": {"speaker": speaker}}])
    decoder = settings.build()
    with pytest.raises(SettingsError, match="tags are not known"):
        decoder(torch.zeros(1, 3, dtype=torch.long))
    filled = settings.additive[0].with_ids({"<S>": 4, "</S>": 5})
    assert (filled.kinds["speaker"].opening_id, filled.kinds["speaker"].closing_id) == (4, 5)
    again = DecoderSettings.model_validate(
        settings.model_copy(update={"additive": (filled,)}).model_dump()
    )
    assert again.additive == (filled,)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"a": {"opening": "x", "closing": "x"}}, "cannot both open and close"),
        ({}, "at least 1"),
        ({"a": {"opening": "x", "closing": "y", "follow": "nam"}}, "inside"),
    ],
)
def test_kinds_that_make_no_sense_are_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        StructureEmbedding.model_validate({"kinds": kinds})
