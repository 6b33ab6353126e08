"""Adapters as PEFT reads them, for the exported base: `PeftModel.from_pretrained(base, FOLDER)`.

s·B·A goes through the same map as the weights themselves, which splits, joins and reorders rows and
columns but is linear; what becomes of it has the same rank, and is taken apart again by its
singular values. So any layout that the family asks for is served.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from coterie.exchange.core.match import Match
from coterie.exchange.core.reparametrise import Reparametrised
from coterie.exchange.core.writing import ForeignTensors
from coterie.exchange.files import write_tensors
from coterie.exchange.huggingface.families import Family
from coterie.exchange.huggingface.writing import match_family
from coterie.exchange.imported import ExchangeError
from coterie.foundation.files import atomic_directory
from coterie.model import Decoder

_LEFT = 1e-4  # of a product's norm may stay beyond its rank: float32, and a map that rescales


def export_adapters(
    base: Decoder, products: Iterable[tuple[str, Tensor]], rank: int, out: Path
) -> int:
    """Write a folder of adapters; return how many matrices have one.

    Args:
        base: what they were tuned from; its weights are used up.
        products: s·B·A of each matrix, by the decoder's names.
        rank: of the adapters; s is in them, so that PEFT's alpha equals it.

    Raises:
        ExchangeError: no family can hold the model, or the adapters are no matrices there.
        UserError: the folder exists, or the disk is full or not writable.
    """
    found = match_family(base)
    parameters = dict(base.named_parameters())
    with torch.no_grad():
        for each in (*base.parameters(), *base.buffers()):
            each.zero_()
        nothing = _foreign(base, found)
        for name, product in products:
            if product.ndim != 2:
                raise ExchangeError(
                    f"{name} packs several experts, for which PEFT's format has no matrix.",
                    hint="Adapt dense parts, align.lora.parts=[attention]; or write the whole "
                    "model: coterie model export RUN",
                )
            parameters[name].copy_(product)
        tensors, modules = {}, []
        for name, tensor in _foreign(base, found).items():
            if (change := tensor - nothing[name]).any():
                modules.append(name.removesuffix(".weight"))
                a, b = _factors(change, rank, name)
                tensors[f"base_model.model.{modules[-1]}.lora_A.weight"] = a
                tensors[f"base_model.model.{modules[-1]}.lora_B.weight"] = b
    with atomic_directory(out) as folder:
        sizes = {name: each.nbytes for name, each in tensors.items()}
        write_tensors(folder, sizes, tensors.__getitem__)
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        about = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
            "lora_dropout": 0.0, "bias": "none", "target_modules": modules,
            "inference_mode": True, "base_model_name_or_path": None,
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(about, indent=2) + "\n")
    return len(modules)


def _foreign(decoder: Decoder, found: Match[Family]) -> dict[str, Tensor]:
    own = Reparametrised(decoder, found.settings)
    read = ForeignTensors(found.family.tensor_map(found.settings), own)
    return {name: read.read(name).clone() for name in read.shapes}


def _factors(product: Tensor, rank: int, name: str) -> tuple[Tensor, Tensor]:
    """Return A [r, in] and B [out, r] with B·A the product."""
    whole = product.double()
    u, s, v = torch.svd_lowrank(whole, q=min(rank + 4, *whole.shape), niter=4)
    a, b = v[:, :rank].mT, u[:, :rank] * s[:rank]
    if (whole - b @ a).norm() > _LEFT * whole.norm():
        raise ExchangeError(f"{name} joins several matrices and is of no rank {rank} there.")
    size = s[:rank].sqrt()[:, None]
    return (a * size).float().contiguous(), (b / size.mT.clamp(min=1e-30)).float().contiguous()
