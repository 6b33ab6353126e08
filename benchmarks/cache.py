"""Bytes that generation keeps of a text: ways of attention, for the sizes of three systems.

    python benchmarks/cache.py [--tokens 2048] [--pieces 512] [--markdown]

For every way, one layer of that attention reads a text of random vectors into the cache that
generation would build for it; what that cache then holds, its spare room included, is measured from
the cache itself and multiplied by the layers. Beside it stands what the formula of
`coterie presets show` says for the same text, spare room left out. Bytes do not depend on the
machine: float32, one text.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from coterie.generate.cache import WindowCacheSettings
from coterie.model import DecoderSettings
from coterie.model.context import ForwardContext
from coterie.model.position import Span

FLOAT = 4  # bytes
COLUMNS = ("system", "attention", "bytes/token", "text of {} tokens", "formula", "of multi-head")


@dataclass(frozen=True)
class System:
    """Sizes of a system: layers, width, heads, and what is its own way of attention."""

    name: str
    layers: int
    width: int
    heads: int
    own: str

    def ways(self) -> dict[str, dict[str, Any]]:
        """Return the attention settings of every way at these sizes."""
        head = self.width // self.heads
        return {
            "multi-head": {"kind": "grouped", "heads": self.heads},
            "grouped, half the heads": {
                "kind": "grouped", "heads": self.heads, "kv_heads": self.heads // 2,
            },
            "multi-query": {"kind": "grouped", "heads": self.heads, "kv_heads": 1},
            # DeepSeek-V2 keeps four heads' channels of latent and half a head's of rotary key.
            "mla, DeepSeek": {
                "kind": "mla", "heads": self.heads, "kv_rank": 4 * head,
                "nope_dim": head, "rope_dim": head // 2,
            },
            "mla, s15era": {
                "kind": "mla", "heads": self.heads, "kv_rank": self.width // 8,
                "query_rank": self.width // 8, "nope_dim": head // 2, "rope_dim": head // 2,
                "value_dim": head, "rotary_key": "per_head", "latent_norm": None,
            },
            "latent vectors, 16 of 32": {
                "kind": "latent_vectors", "heads": self.heads, "kv_heads": self.heads // 2,
                "chunk": 32, "latents": 16,
            },
            "latent vectors, 16 of 128": {
                "kind": "latent_vectors", "heads": self.heads, "kv_heads": self.heads // 2,
                "chunk": 128, "latents": 16,
            },
            "window of 512": {"kind": "grouped", "heads": self.heads, "window": 512},
            "window of 508, 4 sinks": {
                "kind": "grouped", "heads": self.heads, "window": 508, "sinks": 4,
            },
        }  # fmt: skip


SYSTEMS = (
    System("s15era", 30, 512, 8, "mla, s15era"),
    System("mymoe", 12, 768, 4, "latent vectors, 16 of 32"),
    System("yinggem", 12, 768, 12, "window of 512"),
)


@torch.inference_mode()
def held(system: System, attention: dict[str, Any], tokens: int, piece: int) -> tuple[int, float]:
    """Return the bytes that a whole model's cache holds after a text, measured and by formula."""
    decoder = DecoderSettings.model_validate({
        "layers": 1, "width": system.width, "context": tokens, "vocab_size": 8,
        "attention": attention,
    })  # fmt: skip
    plan = decoder.plans()[0].attention
    part = plan.build(system.width).eval()
    for parameter in part.parameters():
        parameter.normal_(0, 0.02)
    position = decoder.position.build(system.width, tokens)
    cache = WindowCacheSettings().build([plan.cache_spec()])
    for start in range(0, tokens, piece):
        length = min(piece, tokens - start)
        rotate = position.rotation(Span(start, length, torch.device("cpu")))
        part(
            torch.randn(1, length, system.width),
            ForwardContext(rotation=rotate, kv_cache=cache.layers[0]),
        )
    keep = plan.cache_spec()
    kept = tokens if keep.window is None else min(keep.window + keep.sinks, tokens)
    formula = plan.counts(system.width, tokens).cache * FLOAT * kept
    return cache.nbytes * system.layers, formula * system.layers


def rows(tokens: int, piece: int) -> list[tuple[str, ...]]:
    """Return the table, a row for each system and way."""
    found = []
    for system in SYSTEMS:
        whole = 0
        for name, attention in system.ways().items():
            measured, formula = held(system, attention, tokens, piece)
            whole = whole or measured
            found.append((
                f"{system.name} ({system.layers} × {system.width})",
                f"{name} (its own)" if name == system.own else name,
                f"{measured / tokens:,.0f}",
                f"{measured / 2**20:.2f} MiB",
                f"{formula / 2**20:.2f} MiB",
                f"{measured / whole:.3f}",
            ))  # fmt: skip
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048, help="length of the text")
    parser.add_argument("--pieces", type=int, default=512, help="tokens read at once")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    asked = parser.parse_args()
    torch.manual_seed(0)
    header = tuple(column.format(f"{asked.tokens:,}") for column in COLUMNS)
    table = [header, *rows(asked.tokens, asked.pieces)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    edge = "| " if asked.markdown else ""
    for index, row in enumerate(table):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        line = (" | " if asked.markdown else "  ").join(cells)
        print(f"{edge}{line}{' |' if asked.markdown else ''}")
        if index == 0 and asked.markdown:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    main()
