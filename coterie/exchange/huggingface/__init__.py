"""Hugging Face checkpoints: folders of config.json, safetensors and tokenizer files.

Reading order: `rules` (which tensors hold which of ours), `families` (one file each), `reading`;
then `plain`, `fit` and `lift` (how a model of ours becomes one that a family can say), `writing`.
Nothing here imports `transformers`.
"""

from coterie.exchange.huggingface.families import FAMILIES
from coterie.exchange.huggingface.reading import import_folder
from coterie.exchange.huggingface.writing import export_folder

__all__ = ["FAMILIES", "export_folder", "import_folder"]
