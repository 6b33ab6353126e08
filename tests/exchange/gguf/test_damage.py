"""Everything that can be wrong with a file is said in words, before anything is built."""

from __future__ import annotations

import struct
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.exchange.gguf import export_file, import_file
from coterie.exchange.gguf.header import read_header
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import MissingExtraError, UserError
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer
from tests.exchange.gguf.conftest import ROWS, write_gguf

VALUES = {
    "context_length": 16, "embedding_length": 16, "block_count": 1, "feed_forward_length": 32,
    "attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def tensors():
    """Return the tensors of a Llama of one layer."""
    shapes = {
        "token_embd": (ROWS, 16), "output_norm": (16,), "blk.0.attn_norm": (16,),
        "blk.0.ffn_norm": (16,), "blk.0.attn_q": (16, 16), "blk.0.attn_k": (16, 16),
        "blk.0.attn_v": (16, 16), "blk.0.attn_output": (16, 16), "blk.0.ffn_gate": (32, 16),
        "blk.0.ffn_up": (32, 16), "blk.0.ffn_down": (16, 32),
    }  # fmt: skip
    return {f"{name}.weight": torch.ones(shape).numpy() for name, shape in shapes.items()}


@pytest.fixture
def write(tmp_path):
    """Write a small file, with changes."""

    def make(architecture="llama", values=(), left_out=(), added=()):
        said = {name: v for name, v in {**VALUES, **dict(values)}.items() if v is not None}
        held = {name: t for name, t in tensors().items() if name not in left_out} | dict(added)
        return write_gguf(tmp_path / "model.gguf", architecture, said, held)

    return make


def refusal(path) -> str:
    """Return the words with which a file is refused."""
    with pytest.raises(UserError) as error:
        import_file(path)
    return str(error.value)


def test_the_small_file_is_sound(write):
    assert import_file(write()).decoder.settings.layers == 1


def test_a_missing_file_and_other_files(tmp_path):
    assert "There is no file" in refusal(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("Shall I compare thee")
    assert "does not begin with the letters GGUF" in refusal(tmp_path / "text.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    assert "no GGUF file" in refusal(tmp_path / "empty.gguf")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    assert "pickle" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GGUF" + struct.pack("<I", 1), "of version 1; versions 2 and 3"),
        (b"GGUF" + struct.pack("<I", 99), "of version 99"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"FUGG" + struct.pack(">I", 3), "big-endian"),
    ],
)
def test_other_versions_and_byte_orders(start, words, write):
    path = write()
    path.write_bytes(start + path.read_bytes()[8:])
    assert words in refusal(path)


def test_unknown_architectures_name_the_nearest(write):
    words = refusal(write("lama"))
    assert "architecture “lama”" in words
    assert "did you mean “llama”?" in words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"block_count": None}, "llama.block_count is missing; it must be a whole number"),
        ({"attention.layer_norm_rms_epsilon": -1.0}, "must be a number above 0"),
        ({"attention.sliding_window": 4}, "no part of the decoder computes"),
        ({"logit_scale": 0.5}, "logit_scale is 0.5"),
        ({"attention.head_count": [2, 4]}, "differs from layer to layer"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, "scaling “longrope”"),
        ({"block_count": 60000}, "block_count is 60,000, for 11 tensors in all"),
        ({"expert_count": 1 << 31}, "a whole number from 0 to 1,073,741,824"),
        ({"expert_count": 1 << 20, "expert_used_count": 2}, "a whole number up to 65,536"),
        ({"embedding_length": 1 << 30}, "has shape [272, 16] instead of [272, 1073741824]"),
    ],
)
def test_values_that_cannot_be(values, words, write):
    assert words in refusal(write(values=values))


def test_values_nobody_reads_are_mentioned(write):
    notes = import_file(write(values={"some_future_thing": 3})).notes
    assert "llama.some_future_thing is not read" in notes


def test_missing_left_over_and_misshapen_tensors_are_all_named(write):
    wrong = {"blk.0.ffn_up.weight": torch.ones(32, 8).numpy(), "extra": torch.ones(3).numpy()}
    words = refusal(write(left_out=["blk.0.attn_k.weight"], added=wrong))
    assert "1 tensors are missing: blk.0.attn_k.weight" in words
    assert "1 tensors are unexpected: extra" in words
    assert "blk.0.ffn_up.weight has shape [32, 8] instead of [32, 16]" in words


def test_values_that_are_no_numbers(write):
    bad = torch.ones(16)
    bad[3] = torch.nan
    assert "holds values that are no numbers" in refusal(
        write(added={"output_norm.weight": bad.numpy()})
    )


def test_unknown_and_unopened_types(write):
    path = write()
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    content[at : at + 4] = struct.pack("<I", 4242)
    path.write_bytes(content)
    assert "of the unknown type 4242" in refusal(path)
    content[at : at + 4] = struct.pack("<I", 24)  # whole numbers of 8 bits
    path.write_bytes(content)
    assert "of the type I8, which cannot be opened" in refusal(path)


def test_pieces_of_a_split_model(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors(), tokenizer={"split.count": 3})
    assert "one of 3 pieces" in refusal(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A whole file with a tokenizer."""
    settings = {"layers": 1, "width": 32, "context": 16, "vocab_size": 257}
    decoder = DecoderSettings.model_validate(settings).build()
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    return export_file(decoder, parse_tokenizer("bytes").build(), path).read_bytes()


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    path = tmp_path / "cut.gguf"
    for share in (9, 24, 100, 1000, 3000, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:share])
        words = refusal(path)
        assert "damaged" in words or "cut off" in words


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_garbled_header_never_does_more_than_be_refused(sound, tmp_path_factory, data):
    """Whatever the lengths say, reading ends soon and without filling the memory."""
    path = tmp_path_factory.mktemp("garbled") / "model.gguf"
    content = bytearray(sound)
    for at in data.draw(st.lists(st.integers(8, 6000), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        header = read_header(path)
    except ExchangeError:
        return
    assert header.end <= len(sound)


def test_without_the_library_the_line_to_run_is_said(write, monkeypatch):
    path = write()
    for name in ("gguf", "gguf.quants"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "coterie\[gguf\]"'):
        import_file(path)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*values: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    said = len(values) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, said) + b"".join(values)


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return text("x") + struct.pack("<IIQ", 9, kind, count) + items


DEEP = struct.pack("<IQ", 9, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(text("x") + struct.pack("<I", 9) + DEEP * 5 + struct.pack("<IQ", 4, 0)),
         "arrays in arrays"),
        (header(text("x") + struct.pack("<I", 9) + DEEP * 100_000), "arrays in arrays"),
        (header(array(4, 1 << 40)), "claims to hold 1,099,511,627,776 items"),
        (header(array(8, 1 << 62)), "claims to hold"),
        (header(struct.pack("<Q", 1 << 63) + bytes(16)), "claims to hold"),
        (header(count=1 << 60), "claims to hold 1,152,921,504,606,846,976 values"),
        (header(tensors=1 << 60), "claims to hold 1,152,921,504,606,846,976 tensors"),
        (header(array(4, 3)), "ends where 3 numbers should follow"),
        (header(text("a") + struct.pack("<I", 99)), "unknown kind 99"),
        (header(*[text("a") + struct.pack("<II", 4, 1)] * 2), "a stands there twice"),
    ],
)  # fmt: skip
def test_headers_that_claim_too_much_are_refused_before_anything_is_made(content, words, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert words in refusal(path)


WRONG = {
    "embedding_length": ["x", 1.5, True, ["x"], [16, 32]],
    "attention.layer_norm_rms_epsilon": ["x", True, float("nan"), float("inf"), ["x"]],
    "rope.freq_base": ["x", 0.0],
    "rope.scaling.factor": ["x", -2.0, True],
    "rope.scaling.type": [3, "yarns", True],
    "block_count": [0, "1"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(n, v, id=f"{n} {v!r}") for n, values in WRONG.items() for v in values],
)  # fmt: skip
def test_values_of_another_type_are_refused_by_name(name, value, write):
    assert name in refusal(write(values={name: value}))


@pytest.mark.parametrize("value", [0, 3, 1 << 31, -32, "32", True, 32.0])
def test_alignments_that_cannot_be(value, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors())
    content = bytearray(path.read_bytes())
    kind = {int: 5 if isinstance(value, int) and value < 0 else 4, str: 8, bool: 7, float: 6}
    raw = {8: text(str(value)), 7: b"\1", 6: struct.pack("<f", 32.0)}
    number = kind[type(value)]
    packed = raw.get(number) or struct.pack("<i" if number == 5 else "<I", int(value))
    content[16:24] = struct.pack("<Q", struct.unpack("<Q", content[16:24])[0] + 1)
    content[24:24] = text("general.alignment") + struct.pack("<I", number) + packed
    path.write_bytes(content)
    assert "general.alignment" in refusal(path)


def test_tensors_that_share_a_place_or_begin_between_are_refused(write):
    path = write()
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8 + 4
    own = struct.unpack("<Q", content[at : at + 8])[0]
    content[at : at + 8] = struct.pack("<Q", 0 if own else 64)
    path.write_bytes(content)
    assert "lie in the same place" in refusal(path)
    content[at : at + 8] = struct.pack("<Q", own + 4)
    path.write_bytes(content)
    assert "no multiple of 32" in refusal(path)


TOKENS = {
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "</s>"], "tokenizer.ggml.token_type": [1, 1, 3],
    "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", [1, 2, 3]), ("tokens", "abc"), ("token_type", ["x", "y", "z"]), ("merges", [1]),
     ("eos_token_id", "x"), ("eos_token_id", True), ("add_bos_token", 1), ("pre", 3),
     ("token_type", [1]), ("eos_token_id", 77), ("model", 5), ("tokens", ["a", "a", "</s>"])],
)  # fmt: skip
def test_what_a_file_says_of_its_tokenizer_is_held_to_its_types(name, value, tmp_path):
    """The model is imported without it then, and the note says why."""
    said = TOKENS | {f"tokenizer.ggml.{name}": value}
    found = import_file(write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors(), None, said))
    assert found.tokenizer is None
    assert any("without a tokenizer" in note for note in found.notes), found.notes
    sound = write_gguf(tmp_path / "b.gguf", "llama", VALUES, tensors(), None, TOKENS)
    assert import_file(sound).tokenizer is not None


def test_what_a_terminal_would_obey_is_written_out(write):
    words = refusal(write("lama\x1b[2J"))
    assert "\x1b" not in words
    assert "lama\\x1b[2J" in words
    notes = import_file(write(values={"\x1b[2Jx": 3})).notes
    assert any("\\x1b[2Jx is not read" in note for note in notes), notes
    assert all(note.isprintable() for note in notes)


@pytest.mark.parametrize(
    ("scaling", "words"),
    [({"type": "yarn", "factor": 4.0, "yarn_beta_fast": 16.0, "yarn_beta_slow": 269.0},
      "beta_slow=269 must not be above beta_fast=16"),
     ({"type": "linear", "factor": 0.5}, "greater than or equal to 1")],
)  # fmt: skip
def test_scalings_that_contradict_themselves_are_refused(scaling, words, write):
    assert words in refusal(write(values={f"rope.scaling.{n}": v for n, v in scaling.items()}))
