"""A kernel from outside the package, in one file, plugs in by its import path."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from coterie.model.experts import MixtureOfExperts

KERNEL = """
    import torch

    from coterie.foundation.settings import Settings
    from coterie.model.experts import ExpertKernel


    class Masked(Settings):
        kind: str

        def build(self):
            return MaskedKernel()


    class MaskedKernel(ExpertKernel):
        calls = 0

        def rows(self, pack, rows, counts):
            type(self).calls += 1
            owner = torch.arange(len(counts)).repeat_interleave(counts)
            out = torch.zeros_like(rows)
            for e in range(len(counts)):
                own = tuple(None if w is None else w[e] for w in pack.weights())
                mine = (owner == e)[:, None]
                out = out + mine * pack.run(rows, own, torch.nn.functional.linear)
            return out
"""


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "my_lab_kernels.py").write_text(textwrap.dedent(KERNEL))
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_lab_kernels:Masked"
    sys.modules.pop("my_lab_kernels", None)


def build(kernel):
    packs = [{"mlp": {"kind": "gated", "width": 6, "bias": True}, "count": 3},
             {"mlp": {"kind": "deep", "width": 4}, "count": 2}]  # fmt: skip
    part = MixtureOfExperts.model_validate(
        {"experts": packs, "experts_per_token": 2, "capacity_factor": 0.8, "kernel": kernel}
    ).build(8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return part.double().train()


def test_an_outside_kernel_gives_the_layers_outputs_and_gradients(my_lab):
    x = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def run(kernel):
        part = build(kernel)
        out, stats = part(x)
        out.square().sum().backward()
        assert int(stats.dropped) > 0
        return [out.detach(), *(p.grad for p in part.parameters())]

    for one, other in zip(run(my_lab), run("loop"), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    assert sys.modules["my_lab_kernels"].MaskedKernel.calls == 2, "once for each pack"


def test_a_dispatcher_from_outside_brings_the_rows_to_other_experts():
    """As an all-to-all would: rows arrive, counted by expert, and the outputs go back."""

    class Doubling:
        local = False

        def __init__(self, inner):
            self.inner, self.rows = inner, 0

        def dispatch(self, x, indices, *, partial):
            sent = self.inner.dispatch(x, indices, partial=partial)
            self.rows += len(sent.rows)
            return sent

        def combine(self, outputs, gates, route):
            return 2 * self.inner.combine(outputs, gates, route)

    x = torch.randn(1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for kernel in ("auto", "gather", "grouped"):  # a lone token is dispatched all the same
        part = build(kernel).eval()
        expected, _ = part(x)
        part.dispatcher = Doubling(part.dispatcher)
        torch.testing.assert_close(part(x)[0], 2 * expected, rtol=0, atol=1e-12)
        assert part.dispatcher.rows == 2
