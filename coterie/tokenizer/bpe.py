"""Byte-level byte-pair encoding, trained on the user's own text. Sennrich et al. 2016."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from coterie.foundation.errors import TokenizerError
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.special import with_end_of_text
from coterie.tokenizer.subword import SubwordTokenizer
from coterie.tokenizer.training import train_bpe


class BPE(Settings):
    """Byte-level byte-pair encoding, trained on the user's own text."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(
        default=4096, ge=257, le=1 << 20, description="Tokens in all, special ones included."
    )
    min_frequency: int = Field(
        default=2, ge=1, description="How often a pair must occur to become a token."
    )
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> SubwordTokenizer:
        """Train on the texts; equal texts in equal order give equal tokenizers.

        A small text may yield fewer than `vocab_size` tokens. See `training` for very long words.

        Raises:
            TokenizerError: the texts are empty, or `vocab_size` leaves no room for the bytes.
        """
        specials = with_end_of_text(self.special_tokens)
        if self.vocab_size < 256 + len(specials):
            raise TokenizerError(
                f"vocab_size {self.vocab_size} leaves no room for the 256 bytes and "
                f"{len(specials)} special tokens.",
                hint=f"Ask for at least {256 + len(specials)}.",
            )
        size = self.vocab_size - len(specials)
        rules = train_bpe(texts, specials, size, self.min_frequency)
        return SubwordTokenizer(rules, specials)

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        if not isinstance(tokenizer, SubwordTokenizer):
            return f"{tokenizer!r} is not of the kind “{self.kind}”"
        if tokenizer.vocab_size > self.vocab_size:
            return f"it has {tokenizer.vocab_size:,} tokens, more than {self.vocab_size:,}"
        missing = [text for text in self.special_tokens if text not in tokenizer.special_tokens]
        return f"it lacks the special tokens {', '.join(missing)}" if missing else None
