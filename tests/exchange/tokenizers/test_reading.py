"""Conventions of tokenizers from elsewhere: as `transformers` has them, and after an export."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import processors as post

from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.exchange.huggingface import import_folder
from coterie.exchange.imported import ExchangeError
from coterie.exchange.tokenizers import fitted, from_huggingface, write_huggingface
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.subword import SubwordTokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TEXT = ["the sun and the moon, o'clock isn't naïve café 12 345 .", "日本 é ba and <x> band!"] * 20
ENDS = ("<s>", "</s>")


def trained(model, trainer, *, before=None, normalizer=None, decoder=None):
    """Return rules trained on a little text."""
    rules = tokenizers.Tokenizer(model)
    if normalizer is not None:
        rules.normalizer = normalizer
    if before is not None:
        rules.pre_tokenizer = before
    if decoder is not None:
        rules.decoder = decoder
    rules.train_from_iterator(TEXT, trainer)
    return rules


def byte_level():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    return trained(models.BPE(), trainer, before=pre_tokenizers.ByteLevel(add_prefix_space=False),
                   decoder=decoders.ByteLevel())  # fmt: skip


def llama():
    """Return SentencePiece's BPE with bytes to fall back on, as Llama's is written."""
    bytes_alone = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<unk>", *ENDS, *bytes_alone], show_progress=False
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
             decoders.Strip(" ", 1, 0)]  # fmt: skip
    rules = trained(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), trainer,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(steps),
    )  # fmt: skip
    description = json.loads(rules.to_str())
    kept = [each for each in description["added_tokens"] if not each["content"].startswith("<0x")]
    return tokenizers.Tokenizer.from_str(json.dumps(description | {"added_tokens": kept}))


def unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=80, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    return trained(models.Unigram(), trainer, before=pre_tokenizers.Metaspace(),
                   decoder=decoders.Metaspace())  # fmt: skip


def word_piece():
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]"], show_progress=False
    )
    return trained(models.WordPiece(unk_token="[UNK]"), trainer,
                   before=pre_tokenizers.BertPreTokenizer(), normalizer=normalizers.Lowercase(),
                   decoder=decoders.WordPiece())  # fmt: skip


KINDS = {"byte level": byte_level, "llama": llama, "unigram": unigram, "word pieces": word_piece}


def write(folder, rules, config=None, **others):
    """Write a tokenizer as its makers would."""
    folder.mkdir(exist_ok=True)
    rules.save(str(folder / "tokenizer.json"))
    files = {"tokenizer_config": config or {}, **others}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def theirs_of(folder):
    transformers = pytest.importorskip("transformers", reason="the test extra brings it")
    transformers.utils.logging.set_verbosity_error()
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def texts(count=60, seed=None):
    """Yield random texts of everything that tokenizers treat in ways of their own."""
    seed = random.randrange(1 << 32) if seed is None else seed
    chance = random.Random(seed)
    parts = ["the", " ", "  ", "and", "ba", "é", "日", "🎭", "\n", ".", " .", "isn't", "<s>",
             "</s>", "<x>", " <x> ", "x<x>x", "[PAD]", "<unk>", "THE", "\u0301", "12"]  # fmt: skip
    for _ in range(count):
        yield "".join(chance.choices(parts, k=chance.randrange(9))), seed


def equal(ours, theirs, close=False):
    """Hold a tokenizer to what transformers does."""
    for text, seed in texts():
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids, (text, seed)
        if ids[:1] != [ours.begin_of_text] and ids[-1:] != [ours.close_of_text]:
            assert ours.framed(ids) == theirs(text)["input_ids"], (text, seed)
        if not ours.joins_bytes or "\ufffd" not in theirs.decode(ids):
            assert ours.decode(ids) == theirs.decode(ids), (text, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_those_of_transformers_before_and_after_an_export(kind, tmp_path):
    rules = KINDS[kind]()
    rules.add_special_tokens(list(ENDS))
    rules.add_tokens([AddedToken("<x>", lstrip=True, rstrip=True, normalized=False)])
    number = rules.token_to_id("<s>")
    rules.post_processor = post.TemplateProcessing("<s> $A", special_tokens=[("<s>", number)])
    config = {
        "bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": True,
        "legacy": False, "chat_template": "{{ x }}", "model_max_length": 77,
    }  # fmt: skip
    ours = from_huggingface(write(tmp_path / "in", rules, config))
    equal(ours, theirs_of(tmp_path / "in"))
    save_tokenizer(ours, tmp_path / "ours.json")
    assert load_tokenizer(tmp_path / "ours.json") == ours
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    equal(ours, theirs_of(tmp_path / "out"))
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert {name: written[name] for name in config} == config
    back = from_huggingface(tmp_path / "out")
    (tmp_path / "again").mkdir()
    write_huggingface(back, tmp_path / "again")
    assert from_huggingface(tmp_path / "again") == back
    assert isinstance(back, SubwordTokenizer)
    assert replace(back.conventions, config=ours.conventions.config) == ours.conventions


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
def test_what_only_the_configuration_says_survives_both_formats(flags, tmp_path):
    """`add_bos_token` and `add_eos_token`, which newer programs read from tokenizer.json alone."""
    begins, closes = flags
    rules = byte_level()
    rules.add_special_tokens(list(ENDS))
    config = {
        "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": begins, "add_eos_token": closes
    }  # fmt: skip
    ours = from_huggingface(write(tmp_path / "in", rules, config))
    bos, eos = rules.token_to_id("<s>"), rules.token_to_id("</s>")
    want = [*([bos] if begins else []), *ours.encode("and"), *([eos] if closes else [])]
    assert ours.framed(ours.encode("and")) == want
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    assert theirs_of(tmp_path / "out")("and")["input_ids"] == want
    assert from_huggingface(tmp_path / "out").framed(ours.encode("and")) == want
    said = write_vocabulary(ours, ours.vocab_size)
    assert said["tokenizer.ggml.add_bos_token"] is begins
    assert said["tokenizer.ggml.add_eos_token"] is closes
    back = read_vocabulary(said)
    assert back is not None
    assert back.framed(back.encode("and")) == want


def test_an_ordinary_entry_that_is_named_becomes_a_special_token(tmp_path):
    """As in transformers; a `<s>` that is no added token once broke the export."""
    rules = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "<": 3, "s": 4}, []))
    rules.decoder = decoders.Fuse()
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    ours = from_huggingface(write(tmp_path / "in", rules, config))
    assert ours.encode("a<s>") == theirs_of(tmp_path / "in").encode("a<s>") == [2, 0]
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    assert theirs_of(tmp_path / "out").encode("a") == [0, 2]
    assert theirs_of(tmp_path / "out").bos_token == "<s>"


def test_an_ordinary_entry_begins_texts_in_gguf():
    said = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["<s>", "</s>", "a"],
        "merges": [],
        "token_type": [1, 3, 1],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "add_bos_token": True,
    }
    ours = read_vocabulary({f"tokenizer.ggml.{name}": value for name, value in said.items()})
    assert ours is not None
    assert ours.framed([2]) == [0, 2]
    again = write_vocabulary(ours, 3)
    assert again["tokenizer.ggml.bos_token_id"] == 0
    assert read_vocabulary(again) == ours


@pytest.fixture
def padded(tmp_path):
    """A tokenizer with one more token than its model has rows: `[PAD]`, as many folders have."""
    rules = byte_level()
    rules.add_special_tokens(["</s>"])
    rows = rules.get_vocab_size()
    config = {"eos_token": "</s>", "pad_token": "[PAD]"}
    return from_huggingface(write(tmp_path / "padded", rules, config)), rows


def test_tokens_without_a_row_are_kept_and_refused_in_use(padded, tmp_path):
    tokenizer, rows = padded
    assert tokenizer.vocab_size == rows + 1
    ours = fitted(tokenizer, rows)
    assert ours.vocab_size == rows
    assert ours.encode("and") == tokenizer.encode("and")
    with pytest.raises(TokenizerError, match=rf"holds '\[PAD\]', token {rows}; the model knows"):
        ours.encode("and [PAD]")
    assert ours.encode("[PAD]", special=False)
    with pytest.raises(TokenizerError, match="outside"):
        ours.decode([rows])
    save_tokenizer(ours, tmp_path / "ours.json")
    assert load_tokenizer(tmp_path / "ours.json") == ours
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    assert theirs_of(tmp_path / "out").pad_token_id == rows
    back = fitted(from_huggingface(tmp_path / "out"), rows)
    assert (back.vocab_size, back.ends) == (rows, ours.ends)
    # No row, no token: llama.cpp counts the rows by the tokens.
    assert len(write_vocabulary(ours, rows)["tokenizer.ggml.tokens"]) == rows
    assert fitted(tokenizer, rows + 64) is tokenizer  # rows without a token are common as well


def test_ordinary_tokens_without_a_row_are_refused_by_name(padded):
    tokenizer, rows = padded
    name = tokenizer.name_of(rows - 2)
    with pytest.raises(TokenizerError, match=r"ordinary ones .* lie beyond") as error:
        fitted(tokenizer, rows - 2)
    assert repr(name) in error.value.message


def test_a_folder_whose_padding_has_no_row_is_imported(padded, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the test extra brings it")
    _, rows = padded
    config = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    with torch.random.fork_rng():
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "padded")
    tokenizer = import_folder(tmp_path / "padded").tokenizer
    assert tokenizer is not None
    assert tokenizer.vocab_size == rows


def test_every_end_keeps_its_part(tmp_path):
    """The one called eos, further ones by number, and the separator, which comes first here."""
    rules = byte_level()
    rules.add_special_tokens(["<|endoftext|>", "<|im_end|>", "<|eom|>", "<|more|>"])
    first = rules.token_to_id("<|endoftext|>")
    numbers = {"eos_token_id": [first + 1, first + 2]}
    config = {"eos_token": "<|im_end|>"}
    ours = from_huggingface(write(tmp_path / "in", rules, config, generation_config=numbers))
    assert ours.end_of_text == first
    assert ours.named_end == first + 1
    assert ours.ends == {first, first + 1, first + 2}
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    assert theirs_of(tmp_path / "out").eos_token == "<|im_end|>"
    said = write_vocabulary(ours, ours.vocab_size)
    assert said["tokenizer.ggml.eos_token_id"] == first + 1
    back = read_vocabulary(said)
    assert back is not None
    assert (back.ends, back.named_end) == (ours.ends, ours.named_end)
    numbers["eos_token_id"].append(first + 3)
    more = from_huggingface(write(tmp_path / "in", rules, config, generation_config=numbers))
    with pytest.raises(ExchangeError, match=r"4 tokens end a text .*<\|more\|>"):
        write_vocabulary(more, more.vocab_size)


def test_several_templates_stay_several(tmp_path):
    rules = byte_level()
    rules.add_special_tokens(["</s>"])
    named = [{"name": "default", "template": "{{ x }}"}, {"name": "tools", "template": "{{ y }}"}]
    config = {"eos_token": "</s>", "chat_template": named}
    ours = from_huggingface(write(tmp_path / "in", rules, config))
    assert ours.chat_template == "{{ x }}"
    (tmp_path / "out").mkdir()
    write_huggingface(ours, tmp_path / "out")
    assert (
        json.loads((tmp_path / "out/tokenizer_config.json").read_text())["chat_template"] == named
    )
    back = read_vocabulary(write_vocabulary(ours, ours.vocab_size))
    assert isinstance(back, SubwordTokenizer)
    assert back.conventions.config["chat_template"] == named


def _strip(rules):
    rules.add_tokens([AddedToken("<|user|>", rstrip=True, normalized=False)])


def _lower(rules):
    rules.normalizer = normalizers.Lowercase()


def _prefixed(rules):
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [(_strip, r"“<\|user\|>” has the flag rstrip"), (_lower, "no name in GGUF"),
     (_prefixed, "no name in GGUF")],
)  # fmt: skip
def test_what_gguf_cannot_say_is_refused_by_name(change, words, tmp_path):
    rules = byte_level()
    rules.add_special_tokens(["</s>"])
    change(rules)
    ours = from_huggingface(write(tmp_path / "in", rules, {"eos_token": "</s>"}))
    with pytest.raises(ExchangeError, match=words):
        write_vocabulary(ours, ours.vocab_size)


def test_frames_that_cannot_be_kept_are_refused_by_name(tmp_path):
    rules = byte_level()
    rules.add_special_tokens(["[gMASK]", "<sop>", "</s>"])
    numbers = [(name, rules.token_to_id(name)) for name in ("[gMASK]", "<sop>")]
    rules.post_processor = post.TemplateProcessing("[gMASK] <sop> $A", special_tokens=numbers)
    folder = write(tmp_path / "in", rules, {"eos_token": "</s>"})
    with pytest.raises(TokenizerError, match=r"puts \[gMASK\] <sop> before"):
        from_huggingface(folder)
    rules.post_processor = post.TemplateProcessing("$A")
    folder = write(tmp_path / "in", rules, {"eos_token": "</s>", "add_bos_token": True})
    with pytest.raises(TokenizerError, match="sets add_bos_token, but names none"):
        from_huggingface(folder)
    listed = {"7": {"content": "<|x|>", "special": True}}
    config = {"eos_token": "</s>", "added_tokens_decoder": listed}
    with pytest.raises(TokenizerError, match=r"lists '<\|x\|>' as token 7"):
        from_huggingface(write(tmp_path / "in", rules, config))


def test_special_tokens_may_be_plain_text(tmp_path):
    rules = byte_level()
    rules.add_special_tokens(["</s>"])
    config = {"eos_token": "</s>", "split_special_tokens": True}
    ours = from_huggingface(write(tmp_path / "in", rules, config))
    assert ours.encode("a</s>") == theirs_of(tmp_path / "in").encode("a</s>")
    assert ours.end_of_text not in ours.encode("a</s>")
