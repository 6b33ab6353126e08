"""Triton's products, in its interpreter, beside those of the CPU in float64."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch

from coterie.model.experts.kernel import products
from coterie.model.experts.kernel.products import ExpertLinear

SIZES = [[5, 0, 70, 3], [0, 0, 1], [64, 64], [0, 0]]


INSIDE = "TRITON_INTERPRET" in os.environ
interpreted = pytest.mark.skipif(not INSIDE, reason="runs in a process of its own, see below")


def test_the_interpreter_finds_nothing_wrong():
    """Run what is below in a process in which Triton interprets from its import on."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    if INSIDE:
        return
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def in_triton():
    return importlib.import_module("coterie.model.experts.kernel.triton_products")


@interpreted
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_products_and_both_gradients_are_those_of_float64(in_triton, monkeypatch, sizes, dtype):
    width, outputs, counts = 33, 70, torch.tensor(sizes)
    x = torch.randn(sum(sizes), width).to(dtype).requires_grad_()
    weight = torch.randn(len(sizes), outputs, width).to(dtype).requires_grad_()
    wanted = torch.randn(sum(sizes), outputs).to(dtype)
    expected = reference(x, weight, counts, wanted)
    monkeypatch.setattr(products, "_of", lambda function, name, rows: getattr(in_triton, name))
    out = ExpertLinear.apply(x, weight, counts)
    found = (out, *torch.autograd.grad(out, (x, weight), wanted))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=20 * torch.finfo(dtype).eps)


def reference(x, weight, counts, wanted):
    x, weight = (each.detach().double().requires_grad_() for each in (x, weight))
    out = ExpertLinear.apply(x, weight, counts)
    return (out.detach(), *torch.autograd.grad(out, (x, weight), wanted.double()))


@interpreted
def test_rows_of_no_expert_and_any_strides_change_nothing(in_triton):
    counts = torch.tensor([3, 66])
    rows, weights = torch.randn(20, 80).T[:, :17], torch.randn(9, 17, 2).permute(2, 1, 0)
    found = in_triton.expert_products(rows, weights, counts)
    torch.testing.assert_close(found[:69], products._products(rows[:69], weights, counts))
    gradients = torch.randn(9, 80).T
    found = in_triton.weight_gradients(rows, gradients, counts)
    expected = products._weight_gradients(rows[:69], gradients[:69], counts)
    torch.testing.assert_close(found, expected)
