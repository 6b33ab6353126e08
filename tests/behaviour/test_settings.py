"""What a person writes is what a run gets: every union and preset, any order, any text."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import (
    Layer,
    dump_yaml,
    file_layer,
    load_settings,
    overrides_layer,
)
from coterie.foundation.records import parse_yaml
from coterie.generate import SamplingSettings
from coterie.presets import preset_layers
from coterie.train.settings import RunSettings

_PATH = Path(__file__).parents[2] / "scripts" / "try_settings.py"
_spec = importlib.util.spec_from_file_location("try_settings", _PATH)
assert _spec is not None
assert _spec.loader is not None
tried = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tried)

QUICKSTART = preset_layers("quickstart")
YINGGEM = preset_layers("yinggem")


def load(*words: str, layers: list[Layer] = QUICKSTART) -> RunSettings:
    return load_settings(RunSettings, [*layers, overrides_layer(words)]).settings


def test_values_beside_a_kind_hold_over_every_preset():
    seed = random.randrange(1 << 32)
    count, wrong = tried.try_unions(seed, share=0.01)
    assert count
    assert not wrong, f"seed {seed}"


def test_any_word_and_any_file_is_taken_or_refused_with_its_key():
    seed = random.randrange(1 << 32)
    assert tried.try_words(60, seed)["refused"]
    assert tried.try_files(30, seed)["refused"]


@pytest.mark.parametrize(
    ("layers", "word", "read", "value"),
    [
        (YINGGEM, "model.dropout={kind: structured, rate: 0.2}",
         lambda s: s.model.dropout.rate, 0.2),
        (QUICKSTART, "train.optimizer={kind: adamw, weight_decay: 0.3}",
         lambda s: s.train.optimizer.weight_decay, 0.3),
        (QUICKSTART, "train.schedule={kind: cosine, final: 0.3}",
         lambda s: s.train.schedule.final, 0.3),
        (QUICKSTART, "model.norm={kind: rms, epsilon: 1e-3}", lambda s: s.model.norm.epsilon, 1e-3),
    ],
)  # fmt: skip
def test_what_stands_beside_a_kind_is_what_trains(layers, word, read, value):
    assert read(load(word, layers=layers)) == value


TEXTS = [
    "JULIET:", "[INST]", "- item", "END # x", "\n", "###", "12:30", "0", "1e3", "1_000", "0x1",
    "017", "yes", "~", "2020-01-01", "=", "<<", ".inf", "- a", "a: b", "#", "&a", "*a", "!x", "@x",
    "%", "|", "`", ">", '"', "'", '"a"', " a ", "\u0085", "\u2028", "\x00", "😀", "true",
    "off", "{a: 1}", "[", "[a: b, c]", "null", "[&a b, c]", "---", "...", "? a", "\ufeff", "\r\n",
    "\t", "[a\n b, c]",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_field_takes_the_text(text: str, tmp_path):
    words = [f"stop={text}", "temperature=0.5"]
    sampling = load_settings(SamplingSettings, [overrides_layer(words)]).settings
    assert sampling.stop == (text,)
    settings = load(f"train.prompts={text}", f"description={text}", f"sample.stop={text}")
    assert settings.train.prompts == (text,)
    assert settings.description == text
    if text not in ("\x00", "null", "~"):
        settings = load(f"data.source={text}", f"data.column={text}")
        assert settings.data.inputs == (text,)
        assert settings.data.column == text
    (tmp_path / "run.yaml").write_text(dump_yaml(settings), encoding="utf-8")
    assert load_settings(RunSettings, [file_layer(tmp_path / "run.yaml")]).settings == settings


@pytest.mark.parametrize(
    ("value", "texts"),
    [('["a", "b"]', ("a", "b")), ("[a, b]", ("a", "b")), ('["[INST]"]', ("[INST]",)),
     ("['x']", ("x",)), ("[]", ()), ('["1e3"]', ("1e3",)), ('["\\ud83d\\ude00"]', ("😀",)),
     ("[1e3, ~]", ("1e3", "~"))],
)  # fmt: skip
def test_a_list_of_texts_is_known_by_its_form(value, texts):
    assert load(f"train.prompts={value}").train.prompts == texts
    source = load(f"data.source={value}") if texts and texts[-1] != "~" else None
    assert source is None or source.data.source == texts


def test_a_member_chosen_elsewhere_decides_what_is_text(tmp_path):
    separate = ["tokenizer.path=1e3", "tokenizer.kind=file"]
    for words in (separate, separate[::-1], ["tokenizer={kind: file, path: 1e3}"]):
        assert load(*words).tokenizer.path == Path("1e3")
    (tmp_path / "over.yaml").write_text("tokenizer: {path: 017}\n")
    layers = [*QUICKSTART, file_layer(tmp_path / "over.yaml")]
    assert load("tokenizer=file", layers=layers).tokenizer.path == Path("017")


def test_an_overlay_file_may_leave_texts_unquoted(tmp_path):
    (tmp_path / "over.yaml").write_text(
        "data: {column: 0, store: null}\nsample: {stop: 12:30}\n"
        "train: {prompts: [1e3, true, yes, 2020-01-01, 0x1F], precision: float32}\n"
    )
    settings = load(layers=[*QUICKSTART, file_layer(tmp_path / "over.yaml")])
    assert settings.data.column == "0"
    assert settings.data.store is None
    assert settings.sample.stop == ("12:30",)
    assert settings.train.prompts == ("1e3", "true", "yes", "2020-01-01", "0x1F")
    (tmp_path / "over.yaml").write_text("train: {prompts: [null]}\n")
    with pytest.raises(SettingsError, match=r"train.prompts.0: .*null; .*quotes"):
        load(layers=[*QUICKSTART, file_layer(tmp_path / "over.yaml")])


@examples(max_examples=15, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=40))
@example("\ud800")
def test_every_text_is_read_back_equal(text: str):
    settings = load(f"description={text}", f"data.column={text}")
    written = dump_yaml(settings)
    written.encode("utf-8")
    layer = Layer("file", parse_yaml(written, "config.yaml", written=True))
    assert load_settings(RunSettings, [layer]).settings == settings


@pytest.mark.parametrize(
    "word",
    [
        "model.layers=1073741824",
        "model.layers=1025",
        "model.width=18446744073709551616",
        "model.context=100000000",
        "model.feedforward.experts.0.count=18446744073709551616",
        "model.feedforward.shared_experts=100000000",
        "model.embedding.rows=99999999999",
        "model.embedding.orders=[2, 99999999999]",
        "train.steps=1000000000000000000",
        "train.batch_size=4294967296",
        "sample.repetition_window=18446744073709551616",
        "seed=18446744073709551616",
        "train.optimizer.learning_rate=1e999",
        "train.optimizer.learning_rate=1e300",
        f"train.optimizer.learning_rate={'9' * 400}",
    ],
)
def test_absurd_sizes_are_refused_at_once_with_their_key(word):
    with pytest.raises(SettingsError) as caught:
        load(word)
    assert f"{word.partition('=')[0]}: " in caught.value.message
    assert len(caught.value.message) < 600


def test_sizes_of_real_models_are_taken():
    settings = load(
        "seed=9223372036854775807", "model.position.theta=4.6e10", "model.context=131072"
    )
    assert settings.model.position.theta == 4.6e10
