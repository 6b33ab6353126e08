"""The kinds of tokenizers one can ask for, and how the command line names them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.files import sha256_file
from coterie.foundation.paths import UserPath
from coterie.foundation.settings import Settings, union
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.published import Tiktoken
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.saving import load_tokenizer, tokenizer_path
from coterie.tokenizer.smollm import SmolLM
from coterie.tokenizer.tables import TABLES


class TokenizerFile(Settings):
    """A tokenizer saved as one JSON file: Coterie's own or any tokenizer.json."""

    kind: Literal["file"] = "file"
    path: UserPath = Field(description="A tokenizer.json, or a folder that holds one.")
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> Tokenizer:
        """Return the tokenizer of the file; the texts are not needed.

        Raises:
            TokenizerError: there is no such file, or it holds no tokenizer.
        """
        return load_tokenizer(self.path).extended(self.special_tokens)

    def identity(self) -> dict[str, Any]:
        """Return what decides the tokenizer that these settings build: the file's content."""
        content = sha256_file(tokenizer_path(self.path))
        return {"kind": self.kind, "sha256": content, "special_tokens": list(self.special_tokens)}

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        """Return why these settings cannot have built a tokenizer, or `None` if they can."""
        wanted = self.build()
        same = wanted.fingerprint == tokenizer.fingerprint
        return None if same else f"{tokenizer!r} is not {wanted!r}"


TokenizerSettings = Annotated[
    Characters | Bytes | BPE | Tiktoken | SmolLM | TokenizerFile,
    union(Characters, Bytes, BPE, Tiktoken, SmolLM, TokenizerFile),
]
LEARNING = (BPE, Characters)
"""Those that depend on the text."""

_SMOLLM = ("smollm", "smollm2")


def parse_tokenizer(
    name: str, special_tokens: Iterable[str] = ()
) -> Characters | Bytes | BPE | Tiktoken | SmolLM | TokenizerFile:
    """Return the settings that a short name means.

    Args:
        name: `characters`, `bytes`, `bpe`, `bpe:4096` (with a vocabulary size), `gpt2`,
            `cl100k_base`, `o200k_base`, `smollm` (or `smollm2`, which is the same), or a path.
        special_tokens: further texts that become one token each.

    Raises:
        TokenizerError: the name means nothing, or the size is not one.
    """
    specials = tuple(special_tokens)
    kind, _, size = name.partition(":")
    if kind == "bpe":
        return _parse_bpe(size, specials)
    if name == "characters":
        return Characters(special_tokens=specials)
    if name == "bytes":
        return Bytes(special_tokens=specials)
    if name in TABLES:
        return Tiktoken(encoding=name, special_tokens=specials)  # type: ignore[arg-type]
    if name in _SMOLLM:
        return SmolLM(special_tokens=specials)
    if Path(name).exists():
        return TokenizerFile(path=Path(name), special_tokens=specials)
    raise TokenizerError(
        f"There is no tokenizer “{name}” and no such file; "
        f"{nearest(name, ['characters', 'bytes', 'bpe:4096', *TABLES, *_SMOLLM])}"
    )


def _parse_bpe(size: str, special_tokens: tuple[str, ...]) -> BPE:
    if not size:
        return BPE(special_tokens=special_tokens)
    if not size.isdecimal():
        raise TokenizerError(
            f"“{size}” is not a vocabulary size.", hint="Write, for example, bpe:4096."
        )
    try:
        return BPE(vocab_size=int(size), special_tokens=special_tokens)
    except ValidationError as error:
        raise TokenizerError(f"vocab_size {size}: {error.errors()[0]['msg']}.") from error
