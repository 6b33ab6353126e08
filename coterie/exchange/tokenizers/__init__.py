"""Tokenizers to and from the files that the `transformers` library reads."""

from coterie.exchange.tokenizers.reading import fitted, from_huggingface
from coterie.exchange.tokenizers.writing import (
    to_huggingface,
    to_huggingface_config,
    write_huggingface,
)
