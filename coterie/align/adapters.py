"""Adapters as a file of their own: A and B of each matrix, small beside the model they belong to.

The file is safetensors: `NAME.lora_a` and `NAME.lora_b` by the decoder's own names, the selection
biases by which a mixture of experts kept its balance meanwhile, and beside them s, the template of
the conversations, and the SHA-256 of the weights that the adapters were tuned on.
Merged into those, they give the tuned run's weights to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from coterie.align.method import weights_digest
from coterie.checkpoint import LoadedModel
from coterie.checkpoint.layout import OPTIMIZER, stored
from coterie.checkpoint.tensor_file import iterate_tensors, save_tensors
from coterie.foundation.errors import CheckpointError
from coterie.foundation.files import atomic_file
from coterie.model import Decoder

_KIND = "coterie adapters"
_KEPT = ("lora.", ".trained")
_A, _B, _BIAS = ".lora_a", ".lora_b", ".selection_bias"


def adapters_of(loaded: LoadedModel) -> dict[str, Tensor]:
    """Return A and B of a checkpoint, `NAME.lora_a` and `NAME.lora_b`.

    Raises:
        CheckpointError: the run was not tuned by adapters.
    """
    if not (loaded.settings.get("align") or {}).get("lora"):
        raise CheckpointError(
            f"{loaded.path} has no adapters: all of its weights were tuned.",
            hint="Tune adapters: coterie align sft RUN ROWS --lora 8; or write the whole model: "
            "coterie model export RUN",
        )
    begin, end = _KEPT
    found = {
        name.removeprefix(begin).removesuffix(end): tensor
        for name, tensor in iterate_tensors(stored(loaded.path, OPTIMIZER))
        if name.startswith(begin) and name.endswith((_A + end, _B + end))
    }
    return found


def products(tensors: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    """Yield s·B·A of each matrix, by the matrix's name."""
    for name in [each.removesuffix(_A) for each in tensors if each.endswith(_A)]:
        yield name, scale * (tensors[name + _B] @ tensors[name + _A])


def save_adapters(loaded: LoadedModel, out: Path) -> int:
    """Write the adapters of a checkpoint; return how many numbers they are.

    Raises:
        CheckpointError: the run was not tuned by adapters.
        UserError: the file exists, or the disk is full or not writable.
    """
    tensors, align = adapters_of(loaded), loaded.settings["align"]
    about = {"kind": _KIND, "scale": repr(align["lora"]["scale"]), "base": align["base_sha256"],
             "template": align.get("template") or ""}  # fmt: skip
    state = loaded.decoder.state_dict()
    biases = {name: each for name, each in state.items() if name.endswith(_BIAS)}
    with atomic_file(out, replace=False) as partial:
        save_tensors({**tensors, **biases}, partial, about)
    return sum(each.numel() for each in tensors.values())


def merge_adapters(base: LoadedModel, path: Path) -> Decoder:
    """Return the base's decoder with s·B·A added; conversations are written as in tuning.

    Raises:
        CheckpointError: the file holds no adapters, or those of other weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if about.get("kind") != _KIND:
        raise CheckpointError(
            f"{path} holds no adapters of ours.", hint="Write them: coterie align adapters RUN"
        )
    if about["base"] != weights_digest(base.path):
        raise CheckpointError(
            f"The adapters of {path} were tuned on other weights than {base.path}.",
            hint="Merge them into the run that they were tuned from.",
        )
    own = base.decoder.state_dict()
    with torch.no_grad():
        for name, product in products(tensors, float(about["scale"])):
            own[name].copy_(own[name] + product)
        for name in (each for each in tensors if each.endswith(_BIAS)):
            own[name].copy_(tensors[name])
    if about["template"] and base.own_tokenizer is not None:
        base.own_tokenizer.chat_template = about["template"]
    return base.decoder
