"""Hugging Face checkpoints: folders of config.json, safetensors and tokenizer files.

Reading order: `families` (one file each), `reading`, `writing`. Nothing here imports
`transformers`.
"""

from coterie.exchange.huggingface.families import FAMILIES
from coterie.exchange.huggingface.reading import import_folder
from coterie.exchange.huggingface.writing import export_folder
