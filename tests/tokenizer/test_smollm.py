"""SmolLM's published tokenizer: its numbers, from the shipped table, whichever way they are got."""

from __future__ import annotations

import lzma

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer import smollm
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.smollm import SmolLM

TOKENIZER = SmolLM().build()

# Read from the published file itself, with the library's own rules: scripts/build_smollm.py.
# fmt: off
PUBLISHED = {
    "Hello world": [19556, 905],
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "In 1603, at 7:30": [788, 216, 33, 38, 32, 35, 28, 418, 216, 39, 42, 35, 32],
    "def f(x):\n\treturn 10  + 2": [
        1604, 275, 24, 104, 727, 198, 197, 5406, 216, 33, 32, 216, 1232, 216, 34,
    ],
    "O, that this too too solid flesh would melt": [
        63, 28, 338, 451, 1147, 1147, 4367, 14169, 736, 14266,
    ],
    "naïve 中文 🙂": [3546, 46494, 216, 28589, 29184, 47526],
    "<|im_start|>user\nHi<|im_end|>": [1, 4093, 198, 26843, 2],
}
# fmt: on

piece = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from([" ", "  ", "\n", "\n\n", "7", " 7", "2024", "'s", "ⅷ²", "\t1", "\x04", "!"]),
    st.sampled_from([*smollm.SPECIAL_TOKENS[:3], "<|im_"]),
)


def test_the_numbers_are_the_published_ones():
    assert TOKENIZER.vocab_size == 49_152
    assert {text: TOKENIZER.encode(text) for text in PUBLISHED} == PUBLISHED
    assert TOKENIZER.special_tokens == {t: i for i, t in enumerate(smollm.SPECIAL_TOKENS)}
    assert TOKENIZER.end_of_text == 0
    assert TOKENIZER.token_bytes(17) == b"!"
    assert TOKENIZER.token_bytes(252) == b" t"  # the first merge, after 17 + 235 entries
    assert all(TOKENIZER.token_bytes(number) for number in range(49_152))


@settings(max_examples=150, deadline=None)
@given(text=st.lists(piece).map("".join))
@example(text=" 1")
@example(text="a  1 b\n2")
@example(text="!\x04!")
def test_the_fast_way_gives_the_numbers_of_the_library(text):
    assert TOKENIZER._fast is not None
    for special, rules in ((True, TOKENIZER._rules), (False, TOKENIZER._plain)):
        expected = rules.encode(text, add_special_tokens=False).ids
        assert TOKENIZER.encode(text, special=special) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.lists(piece).map("".join))
def test_decoding_gives_back_a_text_without_the_bytes_that_have_no_token(text):
    given_back = text.encode().translate(None, smollm.WITHOUT_TOKEN).decode("utf-8", "replace")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == given_back


def test_it_leaves_and_comes_back_as_gguf_names_it():
    said = write_vocabulary(TOKENIZER, TOKENIZER.vocab_size)
    assert said["tokenizer.ggml.pre"] == "smollm"
    assert len(said["tokenizer.ggml.merges"]) == 48_900
    back = read_vocabulary(said)
    assert back is not None
    assert back.rules_json() == TOKENIZER.rules_json()


def test_short_names_and_saved_files_give_it_again(tmp_path):
    assert parse_tokenizer("smollm") == parse_tokenizer("smollm2") == SmolLM()
    with pytest.raises(TokenizerError, match="did you mean “smollm"):
        parse_tokenizer("smolm")
    tagged = parse_tokenizer("smollm", ["<X>"]).build()
    assert tagged.special_tokens["<X>"] == 49_152
    save_tokenizer(tagged, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path)
    assert again == tagged
    assert SmolLM(special_tokens=("<X>",)).mismatch(again) is None
    assert "is not" in (SmolLM().mismatch(again) or "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lzma.compress(b"a b\n"), "checksum"),
        (b"no table", "cannot be used"),
        (None, "No such file"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, content, why):
    if content is not None:
        (tmp_path / "table.xz").write_bytes(content)
    with pytest.raises(TokenizerError, match=why) as caught:
        smollm.read_merges(tmp_path / "table.xz")
    assert "scripts/build_smollm.py" in (caught.value.hint or "")
