"""Which block stands for which tokens: beginnings that texts have in common are computed once.

A block is known by the digest of its tokens and of all before them: a chain of digests that begins
with what must agree for blocks to be shared at all (the model and its weights, the kind of cache,
a salt), as vLLM's prefix cache has it. Full blocks alone are known. On a hit the tokens themselves
are compared.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor

State = dict[str, Tensor]
"""What parts of the decoder carry on after some tokens, of one row."""


@dataclass
class PrefixStats:
    """How much of what was asked for was there.

    Attributes:
        asked: tokens of all prompts.
        found: those among them that did not have to be computed.
        nbytes: memory of all blocks, those of running texts included.
        idle: tokens of blocks that no running text holds.
    """

    asked: int = 0
    found: int = 0
    nbytes: int = 0
    idle: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of the tokens that did not have to be computed."""
        return self.found / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class _Node:
    block: int
    tokens: tuple[int, ...]
    state: State | None


class PrefixIndex:
    """Blocks by what they stand for.

    Args:
        root: what all texts that share blocks have in common.
    """

    def __init__(self, root: bytes) -> None:
        self.root = sha256(root).digest()
        self._nodes: dict[bytes, _Node] = {}
        self._digests: dict[int, bytes] = {}

    @staticmethod
    def digest(before: bytes, tokens: Sequence[int]) -> bytes:
        """Return the digest of a block that follows the one with the digest `before`."""
        return sha256(before + array("q", tokens).tobytes()).digest()

    def knows(self, block: int) -> bool:
        """Return whether a block can be found: what it holds must not change."""
        return block in self._digests

    def add(self, digest: bytes, block: int, tokens: Sequence[int], state: State | None) -> None:
        """Make a full block known, unless another is already.

        Args:
            state: what the decoder's parts carry after it; None: nobody knows, so that no text can
                go on from its end.
        """
        if digest not in self._nodes:
            self._nodes[digest] = _Node(block, tuple(tokens), state)
            self._digests[block] = digest

    def forget(self, block: int) -> None:
        del self._nodes[self._digests.pop(block)]

    def match(self, tokens: Sequence[int], size: int) -> tuple[list[int], list[bytes], State]:
        """Return the known blocks that begin a text, their digests, and the state after them."""
        blocks: list[int] = []
        digests: list[bytes] = []
        end, state, digest = 0, State(), self.root
        for start in range(0, len(tokens) - size + 1, size):
            part = tuple(tokens[start : start + size])
            digest = self.digest(digest, part)
            node = self._nodes.get(digest)
            if node is None or node.tokens != part:
                break
            blocks.append(node.block)
            digests.append(digest)
            if node.state is not None:
                end, state = len(blocks), node.state
        return blocks[:end], digests[:end], state
