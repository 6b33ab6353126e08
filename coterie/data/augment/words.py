"""Words in rows of tokens: where a token goes on with the word before it."""

from __future__ import annotations

import numpy as np

from coterie.batch import TokenBatch
from coterie.data.augment.rows import sizes_of
from coterie.tokenizer.interface import Tokenizer

_INSIDE = frozenset(b"'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") | set(
    range(0x80, 256)
)


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of every token, none for special ones."""
    special = set(tokenizer.special_tokens.values()) | {tokenizer.unknown_token}
    return [
        b"" if token in special else tokenizer.token_bytes(token)
        for token in range(tokenizer.vocab_size)
    ]


class Words:
    """Which tokens begin and end inside a word.

    Attributes:
        opens: whether a token's first byte may stand inside a word, bool [V].
        closes: whether its last byte may.
    """

    def __init__(self, texts: list[bytes]) -> None:
        self.opens = np.array([text[:1] != b"" and text[0] in _INSIDE for text in texts])
        self.closes = np.array([text[:1] != b"" and text[-1] in _INSIDE for text in texts])

    def of(self, batch: TokenBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return where words and the tokens between them begin in the flat batch, and their sizes.

        No word goes on from one row into the next.
        """
        tokens = batch.tokens.numpy()
        begins = np.ones(tokens.shape, dtype=bool)
        joined = self.closes[tokens[:, :-1]]
        joined &= self.opens[tokens[:, 1:]]
        np.logical_not(joined, out=begins[:, 1:])
        firsts = begins.ravel().nonzero()[0]
        return firsts, sizes_of(firsts, begins.size)
