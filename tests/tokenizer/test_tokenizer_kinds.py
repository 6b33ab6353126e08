"""What every kind of tokenizer promises, checked over all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.foundation.errors import TokenizerError
from coterie.foundation.settings import members
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import TokenizerFile, TokenizerSettings, parse_tokenizer
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak. é→🙂\n"
NAMES = ["characters", "bytes", "bpe:300", "gpt2", "cl100k_base", "o200k_base", "smollm"]
TAGS = ("<SPEAKER>", "</SPEAKER>")

_built = {}


def tokenizer(name: str):
    """Build each kind once; they are immutable."""
    if name not in _built:
        _built[name] = parse_tokenizer(name, TAGS).build([TEXT * 3])
    return _built[name]


@pytest.fixture(params=NAMES)
def kind(request):
    return tokenizer(request.param)


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
special_text = st.lists(st.one_of(any_text, st.sampled_from([END_OF_TEXT, *TAGS]))).map("".join)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("characters", "smollm")])
@settings(max_examples=60, deadline=None)
@given(text=special_text)
def test_decoding_gives_back_any_text(name, text):
    kind = tokenizer(name)
    assert kind.decode(kind.encode(text)) == text
    assert kind.decode(kind.encode(text, special=False)) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=sorted(set(TEXT))).map(lambda text: text + END_OF_TEXT + text))
def test_characters_give_back_any_text_of_their_alphabet(text):
    kind = tokenizer("characters")
    assert kind.decode(kind.encode(text)) == text


def test_special_tokens_become_one_number_or_stay_plain(kind):
    text = f"a{TAGS[0]}b{END_OF_TEXT}"
    ids = kind.encode(text)
    assert ids.count(kind.special_tokens[TAGS[0]]) == 1
    assert ids[-1] == kind.end_of_text
    plain = kind.encode(text, special=False)
    assert not set(plain) & set(kind.special_tokens.values()) - {kind.unknown_token}
    assert len(plain) > len(ids)


def test_numbers_stay_inside_the_vocabulary(kind):
    ids = kind.encode_array(TEXT + END_OF_TEXT)
    assert ids.dtype == np.uint32
    assert ids.max() < kind.vocab_size
    assert kind.encode("") == []
    assert isinstance(kind.token_bytes(kind.vocab_size - 1), bytes)
    for outside in (-1, kind.vocab_size):
        with pytest.raises(TokenizerError, match="outside"):
            kind.decode([outside])


def test_every_token_has_bytes(kind):
    for token in range(0, kind.vocab_size, max(kind.vocab_size // 500, 1)):
        assert isinstance(kind.token_bytes(token), bytes)
    assert b"".join(map(kind.token_bytes, kind.encode(TEXT))) == TEXT.encode()


def test_saved_and_loaded_is_the_same_tokenizer(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(kind, path)
    for again in (load_tokenizer(path), load_tokenizer(tmp_path)):
        assert again.fingerprint == kind.fingerprint
        assert again == kind
        assert hash(again) == hash(kind)
        assert again.encode(TEXT + END_OF_TEXT) == kind.encode(TEXT + END_OF_TEXT)
        assert again.special_tokens == kind.special_tokens
        assert again.vocab_size == kind.vocab_size


def test_extending_adds_numbers_at_the_end_and_changes_the_fingerprint(kind):
    more = kind.extended(["<STAGE>", TAGS[0]])
    assert more.vocab_size == kind.vocab_size + 1
    assert more.encode("<STAGE>") == [kind.vocab_size]
    assert more.encode(TEXT) == kind.encode(TEXT)
    assert more.fingerprint != kind.fingerprint
    assert kind.extended([TAGS[0]]) is kind


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("", "blank"), ("a\nb", "line break"), ("<SPEAKER>x", "beginning of"), ("<SPEA", "beginning")],
)
def test_ambiguous_special_tokens_are_refused(kind, wrong, why):
    with pytest.raises(TokenizerError, match=why):
        kind.extended([wrong])


def test_half_a_surrogate_pair_is_refused_or_unknown(kind):
    if kind.unknown_token is not None:
        assert kind.encode("\ud800") == [kind.unknown_token]
        return
    with pytest.raises(TokenizerError, match="U\\+D800\\) at character 2"):
        kind.encode("ab\ud800")


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.sampled_from([*"aZ1.'/ \t\n\r", "é", "中", "\u0301", TAGS[0]]), max_size=8).map(
            "".join
        ),
        max_size=6,
    ),
    name=st.sampled_from(NAMES),
    data=st.data(),
)
def test_cutting_where_the_tokenizer_says_changes_no_token(lines, name, data):
    kind = tokenizer(name)
    text = "\n".join(lines)
    place = kind.cut(text, data.draw(st.integers(0, len(text))))
    if place is not None:
        assert kind.encode(text[:place]) + kind.encode(text[place:]) == kind.encode(text)


def test_a_cut_is_found_in_ordinary_text(kind):
    text = TEXT * 10
    place = kind.cut(text, len(text) // 2)
    assert place is not None
    assert 0 < place <= len(text) // 2


def test_building_twice_gives_equal_tokenizers():
    for name in NAMES[:3]:
        assert parse_tokenizer(name).build([TEXT]) == parse_tokenizer(name).build([TEXT])


def test_every_member_of_the_union_builds_and_identifies_itself(tmp_path):
    save_tokenizer(tokenizer("bytes"), tmp_path / "tokenizer.json")
    for member in members(TokenizerSettings):
        options = {"path": tmp_path} if member is TokenizerFile else {}
        chosen = member(special_tokens=("<X>",), **options)
        built = chosen.build([TEXT])
        assert built.encode("<X>") == [built.special_tokens["<X>"]]
        assert END_OF_TEXT in built.special_tokens
        json.dumps(chosen.identity())


def test_a_file_is_identified_by_its_content_not_its_place(tmp_path):
    for place in ("a", "b"):
        save_tokenizer(tokenizer("bytes"), tmp_path / place / "tokenizer.json")
    first = TokenizerFile(path=tmp_path / "a").identity()
    assert first == TokenizerFile(path=tmp_path / "b").identity()
    save_tokenizer(tokenizer("characters"), tmp_path / "b" / "tokenizer.json")
    assert first != TokenizerFile(path=tmp_path / "b").identity()


def test_a_trained_tokenizer_is_an_ordinary_tokenizer_json(tmp_path):
    import tokenizers

    kind = tokenizer("bpe:300")
    assert isinstance(kind, SubwordTokenizer)
    save_tokenizer(kind, tmp_path / "bpe.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "bpe.json"))
    assert other.encode(TEXT + TAGS[0]).ids == kind.encode(TEXT + TAGS[0])
