"""Blocks of keys and values that rows and texts share: who holds which, and where they lie."""

import heapq
from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.generate.cache.prefix import PrefixIndex

_FIRST_BLOCKS = 16


class BlockPool:
    """Memory in blocks of so many positions, the same for all layers.

    A block is held by some rows, or idle: nobody's, but found again by the tokens it stands for
    until its room is needed; or free.

    Args:
        size: positions of a block.
        keep: how many idle blocks are kept; the one that was longest idle goes first.
        root: what all texts that may share blocks have in common.
    """

    def __init__(self, size: int, keep: int, root: bytes = b"") -> None:
        self.size = size
        self.index = PrefixIndex(root)
        self.layers: list[LayerMemory] = []
        self._keep = keep
        self._holders: list[int] = []
        self._free: list[int] = []  # a heap: low numbers first, so that blocks lie together
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def capacity(self) -> int:
        """Blocks there is memory for."""
        return len(self._holders)

    @property
    def nbytes(self) -> int:
        """Memory of all blocks of all layers, in bytes."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def block_nbytes(self) -> int:
        """Memory of one block in all layers, in bytes."""
        return self.nbytes // max(self.capacity, 1)

    @property
    def device(self) -> torch.device | None:
        """Where the blocks are; None before there are any."""
        return next((layer.device for layer in self.layers), None)

    @property
    def idle(self) -> int:
        """Blocks that no row holds and that can be found."""
        return len(self._idle)

    def take(self) -> int:
        """Return a block that nobody holds, held once."""
        if not self._free:
            new = max(self.capacity, _FIRST_BLOCKS)
            self._free = list(range(self.capacity, self.capacity + new))
            self._holders += [0] * new
        block = heapq.heappop(self._free)
        self._holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """Hold a block once more."""
        self._holders[block] += 1
        self._idle.pop(block, None)

    def release(self, block: int) -> None:
        """Hold a block once less."""
        self._holders[block] -= 1
        assert self._holders[block] >= 0
        if self._holders[block]:
            return
        if not self.index.knows(block):
            heapq.heappush(self._free, block)
            return
        self._idle[block] = None
        while len(self._idle) > self._keep:
            oldest, _ = self._idle.popitem(last=False)
            self.index.forget(oldest)
            heapq.heappush(self._free, oldest)

    def own(self, block: int) -> int:
        """Return a block with the same content that the holder may write to: this one or a copy."""
        if self._holders[block] == 1 and not self.index.knows(block):
            return block
        copy = self.copied(block, self)
        self.release(block)
        return copy

    def copied(self, block: int, source: "BlockPool") -> int:
        """Return a block, held once, with the content of one of this pool or another."""
        copy = self.take()
        for number, layer in enumerate(source.layers):
            self.layer(number).copy(layer, block, copy, self)
        return copy

    def layer(self, number: int) -> "LayerMemory":
        while len(self.layers) <= number:
            self.layers.append(LayerMemory())
        return self.layers[number]


class LayerMemory:
    """Keys [K, positions, C] and values [J, positions, E] of all blocks of one layer."""

    def __init__(self) -> None:
        self._both: tuple[Tensor, Tensor] | None = None

    def tensors(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"], pool: BlockPool
    ) -> tuple[Float[Tensor, "K N C"], Float[Tensor, "J N E"]]:
        """Return the memory of all blocks, of the type of these keys and values."""
        room = pool.capacity * pool.size
        if self._both is None or self._both[0].shape[1] < room:
            old = self._both or (keys[0, :, :0], values[0, :, :0])
            self._both = (_longer(old[0], room), _longer(old[1], room))
        return self._both

    def reserved(self, pool: BlockPool) -> tuple[Float[Tensor, "K N C"], Float[Tensor, "J N E"]]:
        """Return the memory of all blocks, after something was written to it."""
        assert self._both is not None
        return self.tensors(self._both[0][None], self._both[1][None], pool)

    def copy(self, source: "LayerMemory", block: int, target: int, pool: BlockPool) -> None:
        """Copy a block of some layer over one of this."""
        if source._both is None:
            return
        keys, values = source._both
        for held, given in zip(
            self.tensors(keys[None], values[None], pool), source._both, strict=True
        ):
            size = pool.size
            held[:, target * size :][:, :size] = given[:, block * size :][:, :size]

    @property
    def device(self) -> torch.device | None:
        """Where it is; None before it is used."""
        return None if self._both is None else self._both[0].device

    @property
    def nbytes(self) -> int:
        return 0 if self._both is None else sum(each.nbytes for each in self._both)


def _longer(held: Float[Tensor, "K n C"], room: int) -> Float[Tensor, "K N C"]:
    larger = held.new_zeros(held.shape[0], room, held.shape[2])
    larger[:, : held.shape[1]] = held
    return larger
