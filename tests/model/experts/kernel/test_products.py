"""A product per expert: its derivatives, and what compilers are told of it."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts.kernel.products import (
    ExpertLinear,
    expert_products,
    weight_gradients,
)

COUNTS = [3, 0, 4, 1]


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_products_have_the_right_derivatives_and_idle_experts_zeros():
    x, weight, counts = draw(8, 3), draw(4, 5, 3), torch.tensor(COUNTS)
    owner = torch.arange(4).repeat_interleave(counts)
    out = ExpertLinear.apply(x.requires_grad_(), weight.requires_grad_(), counts)
    torch.testing.assert_close(out, torch.einsum("rd,rfd->rf", x, weight[owner]))
    assert torch.autograd.gradcheck(lambda *_: ExpertLinear.apply(*_, counts), (x, weight))
    (gradient,) = torch.autograd.grad(out.sum(), weight)
    assert not gradient[1].any()


@pytest.mark.parametrize("name", ["expert_products", "weight_gradients"])
def test_operators_say_the_shapes_of_what_they_return(name):
    second = draw(4, 5, 3).mT if name == "expert_products" else draw(8, 5)
    operator = getattr(torch.ops.coterie, name)
    inputs = (draw(8, 3), second, torch.tensor(COUNTS))
    torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))
    plain = {"expert_products": expert_products, "weight_gradients": weight_gradients}[name]
    assert torch.equal(operator(*inputs), plain(*inputs))
