"""The tokenizer in a GGUF file: tokens with their types, merges or scores, and a pretokenizer.

Byte-level BPE is called “gpt2” there, SentencePiece's BPE with byte fallback “llama”. Other kinds
(unigram, WordPiece) are refused by name; the model is then imported without a tokenizer.
"""

from coterie.exchange.gguf.vocabulary.reading import read_vocabulary
from coterie.exchange.gguf.vocabulary.writing import write_vocabulary
