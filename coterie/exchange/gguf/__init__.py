"""GGUF, the format of llama.cpp: one file with a model's settings, its tokenizer and its tensors.

Reading order: `header` and `file` (what a file holds), `metadata` (what it says), `families` (what
that means for the decoder, and which tensors hold which), `vocabulary` (the tokenizer), `arrive`
and `leave` (a whole model in and out).
"""

from coterie.exchange.gguf.arrive import import_file
from coterie.exchange.gguf.leave import export_file

__all__ = ["export_file", "import_file"]
