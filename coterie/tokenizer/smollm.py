"""The published tokenizer of SmolLM and SmolLM2: byte-level BPE of 49,152 tokens, shipped here.

`shipped/smollm.txt.xz` holds its 48,900 merges, one a line in the order of their numbers;
`scripts/build_smollm.py` takes them from a published file of SmolLM2 (Allal et al. 2025,
arXiv:2502.02737; Apache-2.0) and compares all else with it. Numbers are, in order: 17 special
tokens, 235 single bytes, the results of the merges.
"""

import functools
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers

from coterie.foundation.errors import TokenizerError
from coterie.foundation.files import sha256_bytes
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer
from coterie.tokenizer.tables import byte_alphabet

MERGES = Path(__file__).parent / "shipped" / "smollm.txt.xz"
SHA256 = "d9826c39f608134a92ee45d09a9058cc82c4d977761b8d9aa332ecf9681c956a"  # decompressed
SPECIAL_TOKENS = (
    END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>",
    "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>",
    "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>",
    "<empty_output>",
)  # fmt: skip
# Six control characters, the first bytes of planes that Unicode has assigned nothing to, and those
# that UTF-8 does not use. The tokenizer leaves them out of a text.
WITHOUT_TOKEN = bytes.fromhex("04 06 13 14 16 1d c0 c1 f1 f2 f5 f6 f7 f8 f9 fa fb fc fd fe ff")


class SmolLM(Settings):
    """The published tokenizer of SmolLM and SmolLM2."""

    kind: Literal["smollm"] = "smollm"
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> SubwordTokenizer:
        """Return the tokenizer; the texts are not needed.

        Raises:
            TokenizerError: the shipped table is missing or damaged.
        """
        return _build(self.special_tokens)

    def identity(self) -> dict[str, Any]:
        return {**self.model_dump(mode="json"), "sha256": SHA256}

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        wanted = self.build()
        same = wanted.fingerprint == tokenizer.fingerprint
        return None if same else f"{tokenizer!r} is not {wanted!r}"


@functools.lru_cache(maxsize=4)
def _build(special_tokens: tuple[str, ...]) -> SubwordTokenizer:
    """Return the tokenizer, once: building it takes a second, and it never changes."""
    return SubwordTokenizer(rules_of(read_merges()), special_tokens)


def rules_of(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Return the rules that merges make, with the special tokens and their numbers."""
    bytes_alone = (c for c, byte in byte_alphabet().items() if byte not in WITHOUT_TOKEN)
    pieces = [*SPECIAL_TOKENS, *sorted(bytes_alone), *(a + b for a, b in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    rules = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    rules.pre_tokenizer = pre_tokenizers.Sequence(  # every digit is a word, then GPT-2's words
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    rules.decoder = decoders.ByteLevel()
    rules.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return rules


def read_merges(path: Path = MERGES) -> list[tuple[str, str]]:
    """Return the pairs of the shipped table in order.

    Raises:
        TokenizerError: it is missing or damaged.
    """
    try:
        content = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise _damaged(path, str(error)) from error
    if sha256_bytes(content) != SHA256:
        raise _damaged(path, "its content does not have the checksum of the published table")
    return [(first, second) for first, second in map(str.split, content.decode().splitlines())]


def _damaged(path: Path, why: str) -> TokenizerError:
    return TokenizerError(
        f"The table of smollm at {path} cannot be used: {why}.",
        hint="Install the package again, or rebuild the file: python scripts/build_smollm.py",
    )
