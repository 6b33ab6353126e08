"""A program reads caches where they lie, however they are laid out."""

import torch

from coterie.generate.cache.stack import Placement
from coterie.generate.native.program import Program
from coterie.model import DecoderSettings


def test_a_cache_at_the_same_address_with_other_strides_is_another():
    values = {"layers": 1, "width": 32, "context": 32, "vocab_size": 50}
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0)).eval()
    program = Program(decoder, threads=1)
    memory = torch.zeros(2, 4 * 64 * 8)

    def text(room):
        keys, values = (each[: 4 * room * 8].zero_().view(1, 4, room, 8) for each in memory)
        steps = [
            program.step([at], [0], [at], [Placement(keys, values)])[0].clone() for at in range(9)
        ]
        return torch.stack(steps), keys[0, :, :9].clone()

    (logits, keys), (again, others) = text(64), text(16)
    assert torch.equal(logits, again)
    assert torch.equal(keys, others)
