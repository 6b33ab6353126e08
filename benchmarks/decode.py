"""Greedy decoding at 17 M and 29 M active parameters, and below 10 M, beside transformers.

    python benchmarks/decode.py [FLAGS OF `coterie benchmark decode`]

Runs `coterie benchmark decode` for each size; see docs/benchmark.md for what it prints and how it
measures.
"""

from __future__ import annotations

import sys

from coterie.cli.app import run

SIZES = ("2M", "17M", "29M")


def main() -> int:
    """Measure and print; return the worst exit code."""
    given = sys.argv[1:]
    peers = [] if "--against" in given else ["--against", "transformers"]
    return max(run(["benchmark", "decode", size, *peers, *given]) for size in SIZES)


if __name__ == "__main__":
    sys.exit(main())
