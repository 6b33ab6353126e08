"""Others to measure beside: one file each, asked only when they are named."""

from coterie.benchmark.peers.interface import Peer
from coterie.benchmark.peers.llama_cpp import LlamaCpp
from coterie.benchmark.peers.transformers import Transformers

PEERS: dict[str, Peer] = {
    "transformers": Transformers(),
    "transformers-compiled": Transformers(compiled=True),
    "llama.cpp": LlamaCpp(),
}
"""By the names that `--against` takes."""

__all__ = ["PEERS", "Peer"]
