"""Tokenizers as files of transformers: the same numbers both ways, ends of texts included."""

from __future__ import annotations

import json
import os

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from coterie.exchange.tokenizers import from_huggingface, to_huggingface, write_huggingface
from coterie.exchange.tokenizers.ranks import merges_of
from coterie.foundation.errors import TokenizerError
from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.special import END_OF_TEXT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TAGS = ("<SPEAKER>", "</SPEAKER>")
HARD = (
    "Hello  world!\n\n  It's 12345 o'clock — naïve café 🙂👩‍👩‍👧 \u00a0\u2028x\t\tHE'LL 'ſ ﬁ "
    f"{END_OF_TEXT}{TAGS[0]}日本語テキスト Ωμέγα\r\n\r\n   \n x  \n  "
)
NAMES = ["characters", "bytes", "bpe:300", "gpt2", "cl100k_base"]
_made: dict[str, tuple[Tokenizer, dict]] = {}


def both(name):
    """Return a tokenizer of ours and its tokenizer.json, made once."""
    if name not in _made:
        ours = parse_tokenizer(name, TAGS).build([HARD * 3])
        _made[name] = ours, to_huggingface(ours)
    return _made[name]


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=16)
blanks = st.text(" \n\t\r\u00a0\u3000a1'sS.", max_size=12)
pieces = st.one_of(anything, blanks, st.sampled_from([*TAGS, END_OF_TEXT]))


@pytest.mark.parametrize("name", NAMES)
def test_the_library_gives_the_same_numbers_and_text(name):
    ours, description = both(name)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(description))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(pieces, max_size=8).map("".join))
    def check(text):
        numbers = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == numbers
        assert theirs.decode(numbers, skip_special_tokens=False) == ours.decode(numbers)

    check()
    numbers = ours.encode(HARD)
    assert theirs.encode(HARD, add_special_tokens=False).ids == numbers
    assert theirs.decode(numbers, skip_special_tokens=False) == ours.decode(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_the_folder(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the test extra brings it")
    ours, description = both(name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    write_config(tmp_path, ours)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs(HARD)["input_ids"] == ours.encode(HARD)
    assert theirs.decode(ours.encode(HARD)) == ours.decode(ours.encode(HARD))
    assert theirs.eos_token_id == ours.end_of_text
    assert len(theirs) <= ours.vocab_size


def write_config(folder, tokenizer):
    """Write the configuration alone: making the other file again takes seconds."""
    from coterie.exchange.tokenizers import to_huggingface_config

    config = to_huggingface_config(tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["characters", "bytes", "bpe:300"])
def test_a_folder_of_ours_comes_back(name, tmp_path):
    ours, _ = both(name)
    write_huggingface(ours, tmp_path)
    back = from_huggingface(tmp_path)
    assert back.encode(HARD) == ours.encode(HARD)
    assert back.decode(ours.encode(HARD)) == ours.decode(ours.encode(HARD))
    assert back.end_of_text == ours.end_of_text
    assert back.vocab_size == ours.vocab_size
    assert back.unknown_token == ours.unknown_token


def test_each_token_has_the_merge_that_makes_it():
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"bc": 4, b"abc": 5, b"cab": 6, b"cc": 7}
    assert merges_of(ranks) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"c", b"ab"),
                                (b"c", b"c")]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A foreign tokenizer whose texts end with </s> and begin with <s>."""
    pieces = [*"abcdefgh ", "<s>", "</s>", "<|eot|>"]
    rules = tokenizers.Tokenizer(
        models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    )
    rules.decoder = decoders.Fuse()
    rules.add_special_tokens(["<s>", "</s>", "<|eot|>"])
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 9)]
    )
    rules.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "</s>"}, "bos_token": "<s>", "chat_template": "{{ x }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [10, 11]}))
    return tmp_path


def test_foreign_tokens_end_and_begin_texts(folder):
    tokenizer = from_huggingface(folder)
    assert tokenizer.end_of_text == 10
    assert tokenizer.ends == {10, 11}
    assert tokenizer.begin_of_text == tokenizer.start_of_text == 9
    assert tokenizer.chat_template == "{{ x }}"
    assert END_OF_TEXT not in tokenizer.special_tokens
    assert from_huggingface(folder / "tokenizer.json") == tokenizer


@pytest.mark.parametrize("end", [10, 11])
def test_every_end_stops_generation_and_is_not_shown(end, folder):
    tokenizer = from_huggingface(folder)
    settings = {"layers": 1, "width": 16, "context": 16, "vocab_size": 12}
    decoder = DecoderSettings.model_validate(settings | {"head": {"bias": True}}).build()
    decoder.head.bias.data[end] = 100.0
    made = Engine(decoder, tokenizer).generate("abc", SamplingSettings(temperature=0))
    assert (made.text, made.tokens, made.finish_reason) == ("", (end,), "end")
    assert Engine(decoder, tokenizer).encode_prompt("abc") == [9, 0, 1, 2]
    assert Engine(decoder, tokenizer).encode_prompt("") == [9]


def test_what_is_missing_is_said(folder):
    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").unlink()
    with pytest.raises(TokenizerError, match="nothing says which token ends a text"):
        from_huggingface(folder)
    (folder / "tokenizer_config.json").write_text("[")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json is not usable JSON"):
        from_huggingface(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n")
    with pytest.raises(TokenizerError, match=r"without a tokenizer\.json"):
        from_huggingface(folder)


def test_a_separator_may_be_named_as_unknown(folder):
    """A separator named as the token for the unknown does not bar texts from ending."""
    rules = tokenizers.Tokenizer(
        models.BPE(vocab={"a": 0, END_OF_TEXT: 1}, merges=[], unk_token=END_OF_TEXT)
    )
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.add_special_tokens([END_OF_TEXT])
    rules.save(str(folder / "tokenizer.json"))
    for name in ("tokenizer_config.json", "generation_config.json"):
        (folder / name).unlink()
    tokenizer = from_huggingface(folder)
    assert tokenizer.ends == {1}
    assert tokenizer.unknown_token is None
