"""GGUF, the format of llama.cpp: one file with a model's settings, its tokenizer and its tensors.

Reading order: `header` and `file` (what a file holds), `metadata` (its settings), `families` (what
they mean for the decoder, and which tensors hold which), `pretokenizers` and `vocabulary` (the
tokenizer), `reading` and `writing` (a whole model).
"""

from coterie.exchange.gguf.reading import import_file
from coterie.exchange.gguf.writing import export_file
