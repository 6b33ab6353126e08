"""Fused experts keep little, and less than a kernel that autograd follows."""

from __future__ import annotations

import torch

from coterie.model.experts import MixtureOfExperts


def kept(kernel, kind):
    """Return the bytes that a layer saves for its backward pass, each storage once."""
    pack = {"mlp": {"kind": kind, "width": 16}, "count": 4}
    settings = {"experts": [pack], "experts_per_token": 4, "kernel": kernel}
    layer = MixtureOfExperts.model_validate(settings).build(64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    seen, own = {}, {p.untyped_storage().data_ptr() for p in layer.parameters()}

    def look(tensor):
        if tensor.is_floating_point():
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(1, 256, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        out = layer(x)[0]
    out.sum().backward()
    return sum(size for place, size in seen.items() if place not in own)


def test_rows_of_pairs_and_activations_are_not_kept():
    rows = 4 * 256 * 64 * 4  # bytes of all pairs at full width
    for kind in ("gated", "mlp", "deep", "hybrid"):
        fused, followed = kept("grouped", kind), kept("loop", kind)
        assert fused < followed - 2 * rows, kind  # neither what entered the experts nor what left
    assert kept("grouped", "mlp") < rows, "tokens, gates and products before the activation"
