"""How much memory caches take, asked before they are made."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from coterie.foundation.errors import UserError
from coterie.generate.sampling import SamplingSettings
from coterie.generate.session import cache_specs, position_limit
from coterie.model import CacheSpec, Decoder

_KEEP_FREE = 0.9
"""The share of what is free that caches may take."""

_MEMINFO = Path("/proc/meminfo")


@runtime_checkable
class Estimates(Protocol):
    """Cache settings that know how much they will keep; of others nothing is foretold."""

    def kept(self, spec: CacheSpec, positions: int, size: int) -> float:
        """Return for how many positions of a text memory is held in one layer.

        Args:
            size: bytes of a number of the model, by which a position is reckoned.
        """
        ...


class CacheMemory:
    """The memory of one model's caches."""

    def __init__(self, decoder: Decoder) -> None:
        self._device = next(decoder.parameters()).device
        size = self._size = next(decoder.parameters()).element_size()
        settings = decoder.settings
        self._limit = position_limit(decoder)
        self._bytes = [
            size * plan.attention.counts(settings.width, settings.context).cache
            for plan in settings.plans()
        ]
        self._specs = cache_specs(decoder)

    def size(self, sampling: SamplingSettings, prompt: int) -> int:
        """Return how many bytes the cache of a text may take; 0 where that is not foretold."""
        return self._of(sampling, self._positions(sampling, prompt))

    def _positions(self, sampling: SamplingSettings, prompt: int) -> int:
        total = prompt + sampling.max_tokens
        return total if self._limit is None else min(total, self._limit)

    def _of(self, sampling: SamplingSettings, positions: int) -> int:
        cache = sampling.cache
        if not isinstance(cache, Estimates):
            return 0
        layers = zip(self._bytes, self._specs, strict=True)
        return int(sum(each * cache.kept(spec, positions, self._size) for each, spec in layers))

    def rows(self, size: int, held: int) -> int:
        """Return how many caches of one size fit into what is free and what is held already."""
        free = free_bytes(self._device)
        if free is None or not size:
            return 1 << 30
        return int((free * _KEEP_FREE + held) // size)

    def refuses(self, sampling: SamplingSettings, prompt: int, held: int) -> UserError | None:
        """Return the error of a text whose cache would not fit alone; None: it does.

        Args:
            held: bytes of caches that would be free by then.
        """
        size, free = self.size(sampling, prompt), free_bytes(self._device)
        if free is None or size <= free * _KEEP_FREE + held:
            return None
        free += held
        positions = self._positions(sampling, prompt)
        fitting = positions
        while fitting and self._of(sampling, fitting) > free * _KEEP_FREE:
            fitting //= 2
        shorter = f"max_tokens={fitting - prompt}, or " if fitting > prompt else ""
        return UserError(
            f"The cache of this text would take {_gigabytes(size)} for {positions:,} positions, "
            f"and {_gigabytes(free)} are free.",
            hint=f"About {fitting:,} positions fit. Set {shorter}"
            f"cache=window cache.size={max(fitting * 8 // 9, 1)}; cache=spilled keeps all on disk.",
        )


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on a device; None where nobody says."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e9:.3g} GB"
