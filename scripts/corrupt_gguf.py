"""Damages GGUF files in thousands of ways: each is imported, or refused in words and soon.

No damage ends in a traceback, in waiting, or in filling the memory.

Run: python scripts/corrupt_gguf.py --rounds 2000 --seed 1
"""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch

sys.path.insert(0, str(Path(__file__).parent))

from damage import attack_for_rounds, judge

from coterie.exchange.gguf import export_file, import_file
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer

SECONDS, BYTES = 30, 12 << 30  # that a file of some kilobytes may take
ARRAY, STRING = 9, 8
SCALARS = "BbHhIif?"
WIDE = {10: "Q", 11: "q", 12: "d"}
MODELS = {
    "llama": {"position": {"kind": "rotary", "scaling": {
        "kind": "yarn", "factor": 4.0, "original_context": 16, "beta_fast": 16.0}}},
    "qwen3moe": {
        "attention": {"kind": "grouped", "heads": 2, "kv_heads": 1, "query_key_norm": "rms"},
        "feedforward": {"kind": "moe", "experts_per_token": 2,
                        "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 32}}]},
    },
    "deepseek2": {
        "attention": {"kind": "mla", "heads": 2, "kv_rank": 16, "nope_dim": 8, "rope_dim": 8,
                      "value_dim": 16},
        "position": {"kind": "rotary", "layout": "interleaved"},
    },
}  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 31, 255, 1 << 16, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 64 - 1)
TEXTS = ("", "x", "llama", "gpt2", "\x1b[2J", "é" * 40, "\ud800", "a b", "x" * 5000)


@dataclass
class Content:
    """A file's content, free to be made wrong.

    Attributes:
        values: name, kind and value of each; that of an array is (kind of items, claimed count or
            None, items).
        tensors: name, sides, kind and offset of each.
        counts: claimed numbers of tensors and values, None: the true ones.
        data: what stands after the header.
    """

    values: list[list[Any]]
    tensors: list[list[Any]]
    data: bytes
    counts: list[int | None] = field(default_factory=lambda: [None, None])
    alignment: int = 32

    def packed(self) -> bytes:
        """Return the file."""
        true = (len(self.tensors), len(self.values))
        head = b"GGUF" + struct.pack("<I", 3)
        for claimed, count in zip(self.counts, true, strict=True):
            head += whole("Q", count if claimed is None else claimed)
        for name, kind, value in self.values:
            head += text(name) + whole("I", kind) + packed(kind, value)
        for name, sides, kind, offset in self.tensors:
            head += text(name) + whole("I", len(sides))
            head += b"".join(whole("Q", side) for side in sides)
            head += whole("I", kind) + whole("Q", offset)
        return head + b"\0" * (-len(head) % self.alignment) + self.data


def whole(letter: str, value: int) -> bytes:
    """Return a whole number, cut to the bits that there are."""
    bits = 8 * struct.calcsize(f"<{letter}")
    return (int(value) & ((1 << bits) - 1)).to_bytes(bits // 8, "little")


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def packed(kind: int, value: Any) -> bytes:
    """Return a value under a kind, whether it fits or not."""
    if isinstance(value, bytes):
        return value
    if kind == ARRAY:
        if not isinstance(value, tuple):
            value = (4, None, [])
        inner, claimed, items = value
        count = len(items) if claimed is None else claimed
        return whole("I", inner) + whole("Q", count) + b"".join(packed(inner, x) for x in items)
    if kind == STRING:
        return text(value if isinstance(value, str) else repr(value))
    letter = SCALARS[kind] if kind < len(SCALARS) else WIDE.get(kind, "I")
    if letter in "fd":
        return struct.pack(f"<{letter}", value if isinstance(value, int | float) else 1.5)
    return whole("B" if letter == "?" else letter, value if isinstance(value, int | float) else 1)


def read(path: Path) -> Content:
    """Return the content of a sound file, read with the `gguf` library."""
    reader = gguf.GGUFReader(path)
    values = []
    for name, each in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kinds = [int(kind) for kind in each.types]
        found = each.contents()
        value = (kinds[-1], None, list(found)) if kinds[0] == ARRAY else found
        values.append([name, kinds[0], value])
    tensors = [
        [each.name, [int(side) for side in each.shape], int(each.tensor_type),
         int(each.data_offset) - int(reader.data_offset)]
        for each in reader.tensors
    ]  # fmt: skip
    return Content(values, tensors, path.read_bytes()[reader.data_offset :])


def sound_files(folder: Path) -> dict[str, bytes]:
    """Write small files of several architectures and return what they hold."""
    tokenizers = {name: parse_tokenizer("bytes").build() for name in MODELS}
    tokenizers["llama"] = parse_tokenizer("bpe:300").build(["the sun and the moon, the sun"] * 9)
    found = {}
    for name, changes in MODELS.items():
        tokenizer = tokenizers[name]
        common = {"layers": 1, "width": 32, "context": 32, "vocab_size": tokenizer.vocab_size}
        with torch.random.fork_rng():
            decoder = DecoderSettings.model_validate(common | changes).build()
        path = export_file(decoder, tokenizer, folder / f"{name}.gguf", dtype="f32")
        import_file(path)
        found[name] = path.read_bytes()
    return found


def nested(depth: int) -> bytes:
    """Return arrays in arrays, so deep, as they stand in a file."""
    return struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQI", 4, 1, 1)


def damage_value(rng: random.Random, content: Content) -> str:
    """Change the kind, the value or the name of something that the file says."""
    at = rng.randrange(len(content.values))
    name, kind, value = content.values[at]
    how = rng.choice(["kind", "value", "item", "count", "deep", "twice", "gone", "name", "swap"])
    if how == "kind":
        content.values[at][1] = rng.choice([*range(14), 99])
        if content.values[at][1] == ARRAY and kind != ARRAY:
            content.values[at][2] = (kind, None, [value] * rng.choice([0, 1, 2, 1000]))
    elif how == "value":
        content.values[at][1:] = rng.choice([
            [STRING, rng.choice(TEXTS)], [10, rng.choice(NUMBERS)], [4, rng.choice(NUMBERS)],
            [5, rng.choice(NUMBERS)], [7, rng.choice((0, 1, 2))],
            [6, rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30))],
            [ARRAY, (rng.choice((4, 6, 7)), None, [rng.choice(NUMBERS[:8]) for _ in range(3)])],
            [ARRAY, (STRING, None, [rng.choice(TEXTS) for _ in range(rng.choice((0, 1, 300)))])],
        ])  # fmt: skip
    elif how == "item" and kind == ARRAY and value[2]:
        items = list(value[2])
        items[rng.randrange(len(items))] = rng.choice([*NUMBERS, *TEXTS])
        content.values[at][2] = (value[0], None, items)
    elif how == "count" and kind == ARRAY:
        content.values[at][2] = (value[0], rng.choice(NUMBERS), value[2])
    elif how == "deep":
        content.values[at][1:] = [ARRAY, nested(rng.choice([1, 3, 5, 100, 3000]))]
    elif how == "twice":
        content.values.append(list(content.values[at]))
    elif how == "gone":
        del content.values[at]
    elif how == "swap":
        other = rng.choice(content.values)
        content.values[at][1:], other[1:] = other[1:], content.values[at][1:]
    else:
        content.values[at][0] = rng.choice(["", "general.alignment", f"{name}x", "\x1b[2J", *TEXTS])
    return f"{how} of {name[:40]!r}, was {str(value)[:40]!r}"


def damage_tensor(rng: random.Random, content: Content) -> str:
    """Change the shape, the kind, the place or the name of a tensor."""
    at = rng.randrange(len(content.tensors))
    name, sides, _, offset = content.tensors[at]
    how = rng.choice(["sides", "dimensions", "kind", "offset", "overlap", "name", "twice", "gone"])
    if how == "sides":
        sides[rng.randrange(len(sides))] = rng.choice([*NUMBERS, 31, 33, 64])
    elif how == "dimensions":
        content.tensors[at][1] = sides * rng.choice([0, 2, 3, 1 << 10])
    elif how == "kind":
        content.tensors[at][2] = rng.choice([*range(42), 99, (1 << 32) - 1])
    elif how == "offset":
        content.tensors[at][3] = rng.choice([*NUMBERS, offset + 1, offset + 32, offset - 32])
    elif how == "overlap":
        content.tensors[at][3] = rng.choice(content.tensors)[3]
    elif how == "name":
        content.tensors[at][0] = rng.choice([*TEXTS, rng.choice(content.tensors)[0]])
    elif how == "twice":
        content.tensors.append(list(content.tensors[at]))
    else:
        del content.tensors[at]
    return f"{how} of the tensor {name}"


def damage_whole(rng: random.Random, content: Content) -> str:
    """Change claimed counts, the alignment, or the tensors' own bytes."""
    how = rng.choice(["counts", "alignment", "cut", "noise"])
    if how == "counts":
        content.counts[rng.randrange(2)] = rng.choice(NUMBERS)
    elif how == "alignment":
        content.values = [each for each in content.values if each[0] != "general.alignment"]
        kind = rng.choice([4, 5, 6, 7, 8, 9, 10])
        value: Any = rng.choice([0, 1, 3, 16, 64, -32, 1 << 31])
        content.values.append(["general.alignment", kind, value if kind < ARRAY else str(value)])
    elif how == "cut":
        content.data = content.data[: rng.randrange(len(content.data))]
    else:
        start = rng.randrange(len(content.data))
        content.data = content.data[:start] + rng.randbytes(64) + content.data[start + 64 :]
    return how


def damage_bytes(rng: random.Random, raw: bytes) -> tuple[str, bytes]:
    """Flip, cut or overwrite without knowing the format; most often in the header."""
    content = bytearray(raw)
    reach = rng.choice([100, 2000, 8000, len(content)])
    how = rng.choice(["flip", "flips", "cut", "noise", "zeros"])
    at = rng.randrange(min(reach, len(content)))
    if how == "cut":
        return f"cut at {at}", bytes(content[:at])
    if how in ("flip", "flips"):
        for _ in range(1 if how == "flip" else 20):
            content[rng.randrange(min(reach, len(content)))] ^= 1 << rng.randrange(8)
    else:
        size = rng.randrange(1, 40)
        content[at : at + size] = rng.randbytes(size) if how == "noise" else bytes(size)
    return f"{how} near {at}", bytes(content)


def attack(rng: random.Random, files: dict[str, bytes], place: Path) -> tuple[str, str]:
    """Damage one of the files and import it; return the verdict and what was done.

    A verdict in capitals is a fault.
    """
    name = rng.choice(list(files))
    place.write_bytes(files[name])
    done = []
    if rng.random() < 0.3:
        what, raw = damage_bytes(rng, files[name])
        done.append(what)
    else:
        content = read(place)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            damage = rng.choice([damage_value, damage_value, damage_tensor, damage_whole])
            done.append(damage(rng, content))
            if not (content.values and content.tensors and content.data):
                break
        raw = content.packed()
    place.write_bytes(raw)
    what = f"{name}: {'; '.join(done)}"

    def use() -> None:
        imported = import_file(place)
        imported.decoder(torch.zeros(1, 3, dtype=torch.long))
        if imported.tokenizer is not None:
            imported.tokenizer.decode(imported.tokenizer.encode("the sun"))

    return judge(use, SECONDS, longest=4000), what


def main() -> int:
    """Attack for some rounds and print what came of it."""
    return attack_for_rounds(__doc__, 2000, BYTES, sound_files, attack)


if __name__ == "__main__":
    sys.exit(main())
