"""Others to measure beside: one file each, asked only when they are named."""

from coterie.benchmark.peers.interface import Peer
from coterie.benchmark.peers.llama_cpp import LlamaCpp
from coterie.benchmark.peers.quantised import Quantised
from coterie.benchmark.peers.transformers import Transformers
from coterie.quantise import Int4Weights, Int8Weights

PEERS: dict[str, Peer] = {
    "transformers": Transformers(),
    "transformers-compiled": Transformers(compiled=True),
    "llama.cpp": LlamaCpp(),
    "int8": Quantised("int8", Int8Weights()),
    "int4": Quantised("int4", Int4Weights()),
}
"""By the names that `--against` takes."""
