# pyright: basic, reportOptionalMemberAccess=false
"""Adapters in PEFT's format: upon the exported base they compute what the tuned model computes."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from coterie.align.lora import Adapters
from coterie.align.settings import Lora
from coterie.exchange.huggingface import export_folder
from coterie.exchange.huggingface.adapters import export_adapters
from coterie.exchange.imported import ExchangeError
from tests.exchange.huggingface.test_writing import LLAMA, MOE, made

RANK = 3


def tuned(base, **lora):
    """Return a copy whose adapters have moved, and s·B·A of each matrix."""
    decoder = copy.deepcopy(base)
    adapters = Adapters(decoder, Lora(rank=RANK, scale=1.7, **lora))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in adapters.parameters:
            each.tensor.add_(torch.randn(each.tensor.shape, generator=generator) * 0.2)
    adapters.moved()
    own, names = dict(decoder.named_parameters()), adapters.kept()
    adapted = [n.removeprefix("lora.").split(".lora_a")[0] for n in names if ".lora_a" in n]
    before = dict(base.named_parameters())
    return decoder, {name: (own[name] - before[name]).detach() for name in adapted}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_computes_what_the_tuned_model_does(tmp_path):
    base = made()
    decoder, products = tuned(base)
    export_folder(base, None, tmp_path / "base")
    count = export_adapters(copy.deepcopy(base), products.items(), RANK, tmp_path / "adapter")
    assert count == len(products) == 2 * 7
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"]) == (RANK, RANK)
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install 'coterie[peers]'")
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    tokens = torch.arange(20).view(2, 10)
    with torch.no_grad():
        expected, found = decoder(tokens).logits, model(tokens).logits
        without = base(tokens).logits
    assert (expected - without).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_packed_experts_and_more_than_the_rank_are_refused(tmp_path):
    base = made(feedforward=MOE)
    _, products = tuned(base)
    with pytest.raises(ExchangeError, match="packs several experts"):
        export_adapters(base, products.items(), RANK, tmp_path / "adapter")
    base = made()
    whole = {name: torch.randn_like(each) for name, each in tuned(base)[1].items()}
    with pytest.raises(ExchangeError, match="is of no rank 3 there"):
        export_adapters(base, whole.items(), RANK, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_attention_alone_beside_experts_is_served(tmp_path):
    base = made(feedforward=MOE)
    _, products = tuned(base, parts=("attention",))
    assert export_adapters(base, products.items(), RANK, tmp_path / "a") == LLAMA["layers"] * 4
