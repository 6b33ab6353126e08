"""Writing any tokenizer as a tokenizer.json: the same ids for the same text.

Bytes become byte-level BPE without merges, characters BPE without merges over their alphabet, ranks
of tiktoken become listed merges; tokenizers of the `tokenizers` library are such files already.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from coterie.exchange.tokenizers.ranks import merges_of, spelled
from coterie.exchange.tokenizers.reading import PROBES, frame_of
from coterie.foundation.errors import TokenizerError
from coterie.foundation.files import write_json_atomic
from coterie.tokenizer import interface
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.published import TiktokenTokenizer
from coterie.tokenizer.raw_bytes import ByteTokenizer
from coterie.tokenizer.special import UNKNOWN
from coterie.tokenizer.subword import SubwordTokenizer
from coterie.tokenizer.tables import load_ranks

# The patterns of tiktoken, written for the regular expressions of the `tokenizers` library: there
# `$` would match at every line's end, and `{1,3}+` repeats. What possessive quantifiers forbid
# cannot happen in these patterns, because no alternative continues after them.
PATTERNS = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def to_huggingface(tokenizer: interface.Tokenizer) -> dict[str, Any]:
    """Return the content of a tokenizer.json that encodes and decodes as a tokenizer does.

    Raises:
        TokenizerError: the tokenizer is of a kind from outside that has no such form.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        return framing(tokenizer)
    if isinstance(tokenizer, ByteTokenizer):
        rules = _bytes()
    elif isinstance(tokenizer, CharacterTokenizer):
        rules = _characters(tokenizer)
    elif isinstance(tokenizer, TiktokenTokenizer):
        rules = _ranks(tokenizer.encoding)
    else:
        raise TokenizerError(
            f"A tokenizer of the kind “{tokenizer.kind}” cannot be written as a tokenizer.json."
        )
    return _with_special_tokens(rules, tokenizer)


def to_huggingface_config(tokenizer: interface.Tokenizer) -> dict[str, Any]:
    """Return the content of the tokenizer_config.json beside it."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "eos_token": tokenizer.name_of(tokenizer.named_end),
        "add_bos_token": tokenizer.begin_of_text is not None,
        "add_eos_token": tokenizer.close_of_text is not None,
    }
    if tokenizer.begin_of_text is not None:
        config["bos_token"] = tokenizer.name_of(tokenizer.begin_of_text)
    if tokenizer.unknown_token is not None:
        config["unk_token"] = tokenizer.name_of(tokenizer.unknown_token)
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    if isinstance(tokenizer, SubwordTokenizer):
        config["add_prefix_space"] = '"add_prefix_space": true' in json.dumps(
            tokenizer.rules_json()["pre_tokenizer"]
        )
        config |= tokenizer.conventions.config
        if tokenizer.chat_template != tokenizer.conventions.chat_template:  # tuned with another
            config["chat_template"] = tokenizer.chat_template
    return config


def framing(tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Return a tokenizer.json whose post-processor adds the tokens before and after a text.

    Not every program that reads both files follows the tokenizer_config.json.
    """
    description = tokenizer.rules_json()
    begin, close = tokenizer.conventions.begin, tokenizer.conventions.close
    framed = Tokenizer.from_str(json.dumps(description))
    said = next(filter(None, map(frame_of(framed), PROBES)), ([], []))
    wanted = ([begin] if begin else []), ([close] if close else [])
    if said == wanted:
        return description
    text = [{"Sequence": {"id": "A", "type_id": 0}}], [{"Sequence": {"id": "B", "type_id": 1}}]
    put = [[{"SpecialToken": {"id": each, "type_id": 0}} for each in part] for part in wanted]
    single = [*put[0], *text[0], *put[1]]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *put[0], *text[1], *put[1]],
        "special_tokens": {
            each: {"id": each, "ids": [framed.token_to_id(each)], "tokens": [each]}
            for part in wanted
            for each in part
        },
    }
    kept = description["post_processor"]
    if kept is not None and kept["type"] == "ByteLevel":  # which only corrects offsets
        template = {"type": "Sequence", "processors": [kept, template]}
    return description | {"post_processor": template}


def write_huggingface(tokenizer: interface.Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder.

    Raises:
        TokenizerError: the tokenizer has no such form.
        UserError: the disk is full or not writable.
    """
    write_json_atomic(folder / "tokenizer.json", to_huggingface(tokenizer))
    write_json_atomic(folder / "tokenizer_config.json", to_huggingface_config(tokenizer))


def _bytes() -> Tokenizer:
    vocabulary = {spelled(bytes([byte])): byte for byte in range(256)}
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = decoders.ByteLevel()
    return rules


def _characters(tokenizer: CharacterTokenizer) -> Tokenizer:
    vocabulary = {character: number for number, character in enumerate(tokenizer.alphabet)}
    vocabulary[UNKNOWN] = tokenizer.special_tokens[UNKNOWN]
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    rules.decoder = decoders.Fuse()
    return rules


def _ranks(encoding: str) -> Tokenizer:
    ranks = load_ranks(encoding)
    vocabulary = {spelled(piece): number for piece, number in ranks.items()}
    merges = [(spelled(first), spelled(second)) for first, second in merges_of(ranks)]
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    pattern = PATTERNS.get(encoding)
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:  # the library has the pattern of gpt2 built in
        rules.pre_tokenizer = bytes_alone
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        rules.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_alone])
    rules.decoder = decoders.ByteLevel()
    return rules


def _with_special_tokens(rules: Tokenizer, tokenizer: interface.Tokenizer) -> dict[str, Any]:
    """Return the rules with every special token under its own id.

    The library numbers added tokens from the end of the vocabulary; published tables leave gaps
    before theirs, so the ids are written into the description.
    """
    description = json.loads(rules.to_str())
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, number in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    ]
    description["added_tokens"] = added
    # Added tokens are numbered by their place after the vocabulary unless it holds them.
    description["model"]["vocab"].update({token["content"]: token["id"] for token in added})
    return description
