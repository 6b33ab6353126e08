"""From ranks to merges, for byte-pair tables in which only the joined bytes have an id.

tiktoken merges, of all neighbours whose joined bytes are in the table, the pair of lowest rank; the
`tokenizers` library merges pairs from a list. Where merging by ranks turns the bytes of a token,
taken alone, into that token, its last step joins exactly two pieces: that pair is its merge. What
happens within a token does not depend on its surroundings, so one pair for each token is enough. A
token that merges never reach is found only as a whole word, which both libraries look up first.
"""

from collections.abc import Mapping
from typing import TypeVar

from coterie.tokenizer.tables import byte_alphabet

Piece = TypeVar("Piece", bytes, str)


def merges_of(ranks: Mapping[Piece, int]) -> list[tuple[Piece, Piece]]:
    """Return the pair that each token is merged from, in the order of the ranks.

    Args:
        ranks: of tokens, which are bytes, or strings where merging begins with characters.
    """
    merges: list[tuple[Piece, Piece]] = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _parts(ranks, token)
            if len(parts) == 2:
                merges.append((parts[0], parts[1]))
    return merges


def _parts(ranks: Mapping[Piece, int], token: Piece) -> list[Piece]:
    """Return the pieces of a token before its last merge."""
    parts = [token[i : i + 1] for i in range(len(token))]
    nothing = 1 << 62
    pairs = [ranks.get(token[i : i + 2], nothing) for i in range(len(token) - 1)]
    while len(parts) > 2:
        lowest = min(pairs)
        if lowest == nothing:
            break
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del pairs[at]
        for left in (at - 1, at):
            if 0 <= left < len(pairs):
                pairs[left] = ranks.get(parts[left] + parts[left + 1], nothing)
    return parts


def spelled(piece: bytes) -> str:
    """Return bytes in the alphabet of byte-level BPE, one character for each byte."""
    return "".join(_CHARACTERS[byte] for byte in piece)


_CHARACTERS = {byte: character for character, byte in byte_alphabet().items()}
