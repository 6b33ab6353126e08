"""What a device sends, by hand: a decoder of two layers of 16 channels, four rows of 16 tokens."""

from __future__ import annotations

import pytest

from coterie.train.cluster import DEVICES, Layout
from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.traffic import flows
from coterie.train.pretraining import fill_vocabulary_size

VOCABULARY, WIDTH, LAYERS, EXPERTS, CHOSEN = 30, 16, 2, 4, 2
ATTENTION = 4 * WIDTH * WIDTH
EXPERT = 3 * WIDTH * WIDTH
OTHERS = 2 * VOCABULARY * WIDTH + WIDTH + LAYERS * (ATTENTION + 2 * WIDTH + WIDTH * EXPERTS)
ALL = OTHERS + LAYERS * EXPERTS * EXPERT
STREAM = 4 * 16 * WIDTH * 4  # rows, tokens, channels, bytes


@pytest.fixture
def sent(tiny):
    """Return a function from a layout to the bytes that a device sends, by kind."""
    anatomy = Anatomy(fill_vocabulary_size(tiny(), VOCABULARY))

    def by_kind(**sizes: int) -> dict[str, float]:
        return {each.kind: each.bytes for each in flows(anatomy, Layout(**sizes), 4)}

    return by_kind


def test_one_device_sends_nothing(sent):
    assert sent() == {}


def test_replicas_reduce_all_gradients(sent):
    assert sent(data=4) == {"gradients reduced": 2 * ALL * 4 * 3 / 4}


def test_shards_gather_twice_and_scatter_once_per_micro_batch(sent):
    assert sent(shard=2, pieces=2) == {
        "weights gathered": 2 * 2 * ALL * 4 / 2,
        "gradients scattered": 2 * ALL * 4 / 2,
    }
    both = sent(data=2, shard=2)
    assert both["gradients reduced"] == 2 * (ALL / 2) * 4 / 2  # of what a device holds
    assert sent(context=2)["weights gathered"] == 2 * ALL * 4 / 2  # a text's devices share too


def test_experts_are_sent_tokens_and_keep_their_weights(sent):
    found = sent(data=2, expert=2)
    one_device = STREAM / 2  # of its rows
    assert found["expert dispatch and combine"] == 4 * LAYERS * CHOSEN * one_device / 2
    assert found["gradients reduced"] == 2 * OTHERS * 4 / 2
    assert "expert gradients reduced" not in found  # each expert has one owner
    again = sent(data=4, expert=2, recompute=True)
    assert again["expert dispatch and combine"] == 6 * LAYERS * CHOSEN * (STREAM / 4) / 2
    copies = 2  # of each expert, on devices that hold half of them
    assert again["expert gradients reduced"] == 2 * (ALL - OTHERS) / 2 * 4 / copies
    # Four that share weights, two of them each half of the experts: gathered where they are.
    shared = sent(shard=4, expert=2)
    assert shared["expert weights gathered"] == 2 * (ALL - OTHERS) / 2 * 4 / 2
    assert shared["weights gathered"] == 2 * OTHERS * 4 * 3 / 4
    assert "expert gradients reduced" not in shared


def test_tensor_pipeline_and_context_send_streams(sent):
    # Two layers, two branches each: gather and scatter, there and back, half of the stream each.
    assert sent(tensor=2) == {"tensor gather and scatter": LAYERS * 2 * 2 * 2 * STREAM / 2}
    assert sent(pipeline=2, pieces=4) == {"pipeline sends": 2 * STREAM}
    # Keys and values of two heads of 8 channels; a device has half of the tokens.
    ring = sent(context=2)["keys and values round the ring"]
    assert ring == 3 * LAYERS * (2 * 16) * (4 * 16 / 2) * 4


def test_a_group_beyond_its_node_takes_the_slow_link(tiny):
    anatomy = Anatomy(fill_vocabulary_size(tiny(), VOCABULARY))
    layout, device = Layout(shard=4, tensor=2), DEVICES["h100"]
    taken = {each.kind: each for each in flows(anatomy, layout, 2)}
    weights, stream = taken["weights gathered"], taken["tensor gather and scatter"]
    near = weights.bytes / 450e9 + weights.messages * device.latency[0]
    far = weights.bytes / 50e9 + weights.messages * device.latency[1]
    assert weights.on(layout, device, per_node=8) == pytest.approx(near)
    assert weights.on(layout, device, per_node=4) == pytest.approx(far)
    assert stream.on(layout, device, per_node=4) < stream.bytes / 50e9 + stream.messages * 20e-6
