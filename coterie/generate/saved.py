"""A text that outlives its process: its tokens, its cache and its random stream in one file.

The file is written under another name and renamed when it is whole, so that an interruption leaves
the state before. It is a safetensors file; tensors are written from where they lie, piece by piece,
so that saving takes no memory. It fits one model alone: the digest of all weights stands in it.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from coterie.checkpoint.tensor_file import save_tensors
from coterie.foundation.errors import UserError
from coterie.foundation.files import atomic_file
from coterie.generate.sampling import SamplingSettings

_FORMAT = "coterie session 1"


@dataclass
class SavedText:
    """All that a text goes on from.

    Attributes:
        model: the digest of its weights.
        sampling: how its tokens are drawn; the random stream is known by its seed and by how many
            were.
        prompt: its tokens.
        written: the tokens after those.
        stretch: the tokens that the cache has read.
        tensors: what the cache holds, by name.
    """

    model: str
    sampling: SamplingSettings
    prompt: list[int]
    written: list[int]
    stretch: list[int]
    tensors: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: the disk is full or not writable.
        """
        said = json.dumps({
            "model": self.model, "sampling": self.sampling.model_dump(mode="json"),
            "prompt": self.prompt, "written": self.written, "stretch": self.stretch,
        })  # fmt: skip
        with atomic_file(path) as partial:
            save_tensors(self.tensors, partial, {"format": _FORMAT, "text": said})

    @classmethod
    def load(cls, path: Path, model: str) -> "SavedText":
        """Read a file.

        Raises:
            UserError: it is no session, is damaged, or belongs to another model.
        """
        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                if meta.get("format") != _FORMAT:
                    raise UserError(f"{path} is no session that `coterie generate` has written.")
                said = json.loads(meta["text"])
                if said["model"] != model:
                    raise UserError(
                        f"The session {path} was written with another model, or with other weights "
                        "of this one.",
                        hint="Name the run and the step it was begun with, or begin a new file.",
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            sampling = SamplingSettings.model_validate(said["sampling"])
        except (SafetensorError, ValidationError, KeyError, ValueError) as error:
            raise UserError(f"The session {path} is damaged: {error}") from error
        return cls(model, sampling, said["prompt"], said["written"], said["stretch"], tensors)


def weights_digest(decoder: nn.Module) -> str:
    """Return the digest of all parameters and buffers of a model."""
    digest = sha256()
    for name, tensor in sorted(decoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        held = tensor.detach().cpu().contiguous()
        with suppress(RuntimeError):  # tensors that hold others have no numbers of their own
            digest.update(held.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
