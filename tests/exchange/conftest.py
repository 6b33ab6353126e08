"""A small Hugging Face checkpoint, and what an import of it is refused with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from coterie.cli.app import run as coterie
from coterie.exchange.huggingface import export_folder, import_folder
from coterie.exchange.imported import ExchangeError
from coterie.model import DecoderSettings

SETTINGS = {
    "layers": 2, "width": 16, "context": 8, "vocab_size": 11,
    "attention": {"kind": "grouped", "heads": 2},
    "feedforward": {
        "kind": "moe", "experts": [{"count": 3, "mlp": {"kind": "gated", "width": 8}}],
        "experts_per_token": 2,
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Write a small, sound Mixtral checkpoint."""
    decoder = DecoderSettings.model_validate(SETTINGS).build(torch.Generator().manual_seed(1))
    return export_folder(decoder, None, tmp_path / "model")


@pytest.fixture
def refused(folder, capsys):
    """Import the folder, expect a refusal from the library and the verb alike; return the words."""

    def refuse(path: Path = folder) -> str:
        with pytest.raises(ExchangeError) as error:
            import_folder(path)
        assert coterie(["model", "import", str(path), "--name", "foreign"]) == 2
        assert " ".join(error.value.message.split()) in " ".join(capsys.readouterr().err.split())
        assert not Path(os.environ["COTERIE_RUNS"], "foreign").exists()
        return str(error.value)

    return refuse
