"""Tokenizers that travel: to and from the files that the `transformers` library reads."""

from coterie.exchange.tokenizers.arrive import from_huggingface
from coterie.exchange.tokenizers.leave import (
    to_huggingface,
    to_huggingface_config,
    write_huggingface,
)

__all__ = ["from_huggingface", "to_huggingface", "to_huggingface_config", "write_huggingface"]
