"""Where tokens stand, found without waiting for a device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coterie.model.context import ForwardContext
from coterie.model.placing import placed
from coterie.model.position import RotaryPosition


class Unread(TorchDispatchMode):
    """Refuses to give the host a value, which a recorded step cannot wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_packed_documents_are_placed_without_a_look_at_them():
    position = RotaryPosition().build(8, 16)
    documents = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 2, 3, 4, 5]])
    context = ForwardContext(documents=documents)
    with Unread():
        placed_at, span = placed(context, documents, position)
        turned = placed_at.rotation(torch.ones(2, 6, 1, 8))
    assert span.at.tolist() == [[0, 1, 2, 0, 1, 0], [0] * 6]
    alone, _ = placed(ForwardContext(), documents[:, :3], position)
    assert torch.equal(turned[0, :3], alone.rotation(torch.ones(2, 3, 1, 8))[0])
