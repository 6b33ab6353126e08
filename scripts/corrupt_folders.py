"""Damages Hugging Face folders in hundreds of ways: each is imported, or refused in words and soon.

Configurations, indexes, headers of safetensors and tokenizer files are edited as well as their
bytes; what is imported must be able to run.

Run: python scripts/corrupt_folders.py --rounds 500 --seed 1
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from damage import BYTES, attack_for_rounds, edit_json, files, judge

from coterie.exchange.huggingface import export_folder, import_folder
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.subword import SubwordTokenizer

SECONDS, MEMORY = 30, 12 << 30
EXPERTS = {"count": 4, "mlp": {"kind": "gated", "width": 16}}
MODELS = {
    "llama": {"position": {"kind": "rotary", "scaling": {
        "kind": "llama3", "factor": 8.0, "original_context": 16}}},
    "mixtral": {"attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
                "feedforward": {"kind": "moe", "experts_per_token": 2, "experts": [EXPERTS]}},
    "deepseek_v3": {
        "attention": {"kind": "mla", "heads": 2, "kv_rank": 16, "nope_dim": 8, "rope_dim": 8,
                      "value_dim": 16},
        "position": {"kind": "rotary", "layout": "interleaved"},
    },
    "gpt2": {"position": {"kind": "learned"}, "norm": {"kind": "layer"},
             "attention": {"kind": "grouped", "heads": 4, "bias": True},
             "feedforward": {"kind": "dense", "mlp": {"kind": "mlp", "width": 64}}},
}  # fmt: skip


def sound_folders(place: Path) -> list[Path]:
    """Write small folders of several families, with tokenizers of several kinds."""
    bpe = parse_tokenizer("bpe:300", ["<s>"]).build(["the sun and the moon, the sun"] * 9)
    assert isinstance(bpe, SubwordTokenizer)
    conventions = Conventions(begin="<s>", config={"legacy": False, "pad_token": "<s>"})
    framed = SubwordTokenizer.from_json({**bpe.to_json()})
    tokenizers = [
        SubwordTokenizer(framed._rules, conventions=conventions),
        parse_tokenizer("bytes").build(),
        parse_tokenizer("characters").build(["the sun and the moon"]),
    ]
    found = []
    for number, (name, changes) in enumerate(MODELS.items()):
        tokenizer = tokenizers[number % len(tokenizers)]
        common = {"layers": 1, "width": 32, "context": 32, "vocab_size": tokenizer.vocab_size}
        with torch.random.fork_rng():
            decoder = DecoderSettings.model_validate(common | changes).build()
        limit = 20_000 if number % 2 else 1 << 30  # one file, or shards with an index
        found.append(export_folder(decoder, tokenizer, place / name, shard_bytes=limit))
    return found


def damage_json(rng: random.Random, folder: Path) -> str:
    """Edit one of the JSON files once or several times."""
    file = rng.choice([file for file in files(folder) if file.suffix == ".json"])
    value = {"": json.loads(file.read_text(encoding="utf-8"))}
    done = [edit_json(rng, value[""] or value) for _ in range(rng.choice([1, 1, 1, 3]))]
    file.write_text(json.dumps(value[""]), encoding="utf-8", errors="surrogatepass")
    return f"{file.name}: {'; '.join(done)}"


def damage_text(rng: random.Random, folder: Path) -> str:
    """Put what JSON readers stumble over into one of the files."""
    file = rng.choice([file for file in files(folder) if file.suffix == ".json"])
    content = file.read_bytes()
    what = rng.choice([
        b"[" * 100_000, b"NaN", b"1" * 10_000, b"\xff\xfe", b"\xef\xbb\xbf" + content, b"null",
        content[:-3], content + content, content.replace(b'"', b"'"), b"[]", b'"x"', b"",
        content.replace(b"{", b'{"vocab_size": 7, "vocab_size": 8, ', 1),
    ])  # fmt: skip
    file.write_bytes(what)
    return f"{file.name} holds {what[:40]!r}"


def damage_header(rng: random.Random, folder: Path) -> str:
    """Edit the header of a safetensors file, or the length that it claims."""
    file = rng.choice([file for file in files(folder) if file.suffix == ".safetensors"])
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if rng.random() < 0.3:
        size = rng.choice([0, 1, size - 1, size + 1, 1 << 20, 1 << 40, (1 << 64) - 1])
        file.write_bytes(struct.pack("<Q", size) + content[8:])
        return f"{file.name} claims a header of {size}"
    done = edit_json(rng, header)
    raw = json.dumps(header).encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return f"header of {file.name}: {done}"


def attack(rng: random.Random, folders: list[Path], place: Path) -> tuple[str, str]:
    """Damage a copy of one of the folders and import it; return the verdict and what was done.

    A verdict in capitals is a fault.
    """
    source, other = rng.sample(folders, 2)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)
    how = rng.choice([damage_json, damage_json, damage_json, damage_text, damage_header, None])
    what = rng.choice(BYTES)(rng, place, other) if how is None else how(rng, place)
    what = f"{source.name}: {what}"

    def use() -> None:
        imported = import_folder(place)
        if imported.tokenizer is not None:
            engine = Engine(imported.decoder, imported.tokenizer)
            engine.generate("the", SamplingSettings(max_tokens=2, temperature=0))

    return judge(use, SECONDS, longest=6000), what


def main() -> int:
    """Attack for some rounds and print what came of it."""
    return attack_for_rounds(__doc__, 500, MEMORY, sound_folders, attack)


if __name__ == "__main__":
    sys.exit(main())
