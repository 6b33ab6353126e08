"""Each preset held to the figures and traits of the system whose name it bears."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.generate.session import cache_specs
from coterie.language.drama import DRAMA_TAGS
from coterie.model import count
from coterie.model.attention import GroupedAttention, LatentAttention, LatentVectorAttention
from coterie.model.feedforward import Dense
from coterie.presets import preset_departures, preset_layers, preset_names, preset_scales
from coterie.train import RunSettings
from coterie.train.precision import resolve_precision


def settings(name: str, scale: str | None = None, *words: str) -> RunSettings:
    layers = [*preset_layers(name, scale), overrides_layer(words)]
    return load_settings(RunSettings, layers).settings


def parameters(name: str, vocab_size: int) -> int:
    """Count what the decoder of full size would hold, by building it without memory."""
    with torch.device("meta"):
        built = settings(name, None, f"model.vocab_size={vocab_size}").model.build()
    return sum(p.numel() for p in built.parameters())


def routed(run: RunSettings):
    """Return the layers' feed-forward parts, from the bottom up."""
    return [plan.feedforward for plan in run.model.plans()]


def test_yinghub():
    run = settings("yinghub")
    model, moe = run.model, run.model.feedforward
    assert (model.layers, model.width, model.context) == (6, 192, 96)
    assert model.attention.heads == 6
    assert model.position.kind == "learned"
    assert (model.embedding.kind, model.embedding.rank) == ("factorised", 64)
    assert [(pack.count, pack.mlp.kind) for pack in moe.experts] == [
        (2, "deep"), (2, "wide"), (2, "hybrid"),
    ]  # fmt: skip
    assert (moe.experts_per_token, moe.capacity_factor) == (2, 1.5)
    assert moe.router.select.kind == "dynamic"
    assert (moe.router.noise.kind, moe.router.noise.std) == ("gaussian", 0.1)
    assert set(model.additive[0].kinds) == {"speaker", "scene", "stage"}
    assert (model.block_layout.kind, model.block_layout.gate) == ("parallel", "channel")
    assert (model.dropout.kind, model.dropout.rate) == ("structured", 0.2)
    assert model.dropout.size > 1  # block-wise
    assert (run.train.clip.kind, run.train.clip.max_norm) == ("norm", 1.2)
    tokenizer = run.tokenizer.build()
    assert tokenizer.vocab_size == 50_257 + len([*DRAMA_TAGS, "<unk>"])
    assert {*DRAMA_TAGS, "<unk>"} <= set(tokenizer.special_tokens)


def test_yinggem():
    run = settings("yinggem")
    model, sample = run.model, run.sample
    assert (model.layers, model.width, model.context) == (12, 768, 1024)
    assert isinstance(model.attention, GroupedAttention)
    assert (model.attention.heads, model.attention.kv_heads or 12) == (12, 12)
    assert (model.attention.window, model.attention.bias) == (512, True)
    assert isinstance(model.feedforward, Dense)
    mlp = model.feedforward.mlp
    assert (mlp.kind, mlp.activation, mlp.width, mlp.bias) == ("gated", "gelu", 1024, True)
    assert (model.norm.kind, model.norm.epsilon) == ("rms", 1e-6)
    assert (model.position.kind, model.position.theta) == ("rotary", 10_000)
    assert (model.head.tied, model.head.bias) == (False, True)
    assert (run.tokenizer.kind, run.tokenizer.encoding) == ("tiktoken", "gpt2")
    assert parameters("yinggem", 50_257) == 133_957_969
    assert run.train.optimizer.kind == "adafactor"
    assert (run.train.clip.kind, run.train.clip.max_norm) == ("norm", 1.0)
    assert (run.train.batch_size, run.train.batch_size * model.context) == (8, 8192)
    assert (sample.temperature, sample.top_p) == (0.9, 0.85)
    assert (sample.repetition_penalty, sample.max_tokens, sample.top_k) == (1.2, 200, None)
    assert (sample.cache.kind, sample.cache.size) == ("window", 512)
    assert run.train.precision == "auto"
    assert (run.train.patience, run.train.epochs is None) == (3, False)
    train = run.train
    assert (train.evaluate_every, train.checkpoint_every, train.sample_every) == (None, None, None)
    assert train.with_epoch_of(200).spacing(train.evaluate_every) == 200  # so patience is epochs


def test_yinggem_takes_bfloat16_where_the_device_is_fast_at_it(monkeypatch):
    assert resolve_precision("auto", torch.device("cpu")).name == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert resolve_precision("auto", torch.device("cuda")).name == "bfloat16"


@pytest.mark.parametrize("scale", [None, "tiny"])
def test_yinggems_cache_holds_as_much_as_its_attention_sees(scale):
    run = settings("yinggem", scale, "model.vocab_size=300")
    with torch.device("meta"):
        decoder = run.model.build()
    assert {keep.window for keep in cache_specs(decoder)} == {run.sample.cache.size}


def test_blues():
    run = settings("blues")
    model = run.model
    assert (model.layers, model.width) == (12, 768)
    assert (model.attention.heads, model.attention.kv_heads) == (12, 1)
    parts = routed(run)
    assert [part.kind for part in parts] == ["dense", "moe"] * 6
    moe = parts[1]
    assert sum(pack.count for pack in moe.experts) == 8
    assert (moe.experts_per_token, moe.router.select.kind) == (2, "top_k")
    assert (moe.router.noise.kind, moe.balance.kind) == ("learned", "auxiliary")
    assert moe.balance.coefficient > 0
    assert (model.norm.kind, model.position.kind) == ("rms", "rotary")
    assert (model.dropout.kind, model.dropout.rate) == ("independent", 0.0)
    assert (model.attention.dropout, model.stochastic_depth) == (0.0, 0.0)
    assert run.tokenizer.build().vocab_size == 200_019
    assert (run.train.gradient_accumulation, run.seed) == (4, 1337)
    assert (run.sample.top_p, run.sample.top_k) == (0.9, None)


def test_s15era():
    run = settings("s15era")
    model, attention, moe = run.model, run.model.attention, run.model.feedforward
    assert (model.layers, model.width, model.context) == (30, 512, 512)
    assert isinstance(attention, LatentAttention)
    assert attention.heads == 8
    assert attention.kv_rank == 512 // 8
    assert attention.nope_dim == attention.rope_dim == 512 // 8 // 2
    assert [(pack.count, pack.mlp.width) for pack in moe.experts] == [(7, 768)]
    assert moe.shared_experts == 1
    assert (moe.experts_per_token, moe.router.score.kind) == (2, "sigmoid")
    assert (moe.balance.kind, moe.balance.sequence) == ("bias", 0.0)
    assert model.head.tied
    assert run.tokenizer.kind == "smollm"
    assert run.tokenizer.build().vocab_size == model.vocab_size == 49_152
    assert model.initial.std == pytest.approx(1 / 24, rel=1e-15)
    assert parameters("s15era", 49_152) == 324_640_256  # about 325 M
    assert run.train.batch_size * model.context == 4096
    assert run.train.checkpoint_first
    assert run.train.sample_every is None  # samples at each evaluation, and at step 0


def test_s15eras_matrices_are_drawn_with_a_spread_of_one_in_24():
    run = settings("s15era", "tiny", "model.vocab_size=1024")
    torch.manual_seed(0)
    decoder = run.model.build()
    for name, parameter in decoder.named_parameters():
        if parameter.ndim >= 2 and parameter.numel() > 1000:
            assert float(parameter.detach().std()) == pytest.approx(1 / 24, rel=0.1), name


def test_mymoe():
    run = settings("mymoe")
    model, moe = run.model, run.model.feedforward
    assert (model.layers, model.width, model.context) == (12, 768, 128)
    assert isinstance(model.attention, LatentVectorAttention)
    assert (model.attention.heads, model.attention.kv_heads) == (4, 2)
    assert model.attention.latents == 16
    assert [(pack.count, pack.mlp.kind) for pack in moe.experts] == [(2, "gated")]
    assert (model.norm.kind, model.position.kind) == ("rms", "rotary")
    assert run.tokenizer.kind == "bpe"
    assert moe.capacity_factor is not None
    assert moe.router.noise.kind == "gaussian"
    assert (moe.balance.kind, moe.balance.coefficient) == ("auxiliary", 0.01)
    assert run.train.activation_checkpointing


def test_gpt2():
    run = settings("gpt2")
    model = run.model
    assert (model.layers, model.width, model.context) == (12, 768, 1024)
    assert (model.attention.heads, model.attention.bias) == (12, True)
    assert model.position.kind == "learned"
    assert (model.norm.kind, model.norm.epsilon) == ("layer", 1e-5)
    assert (model.feedforward.mlp.kind, model.feedforward.mlp.activation) == ("mlp", "gelu_tanh")
    assert model.head.tied
    assert run.tokenizer.build().vocab_size == 50_257
    assert parameters("gpt2", 50_257) == 124_439_808


def test_quickstart():
    run = settings("quickstart")
    assert sum(pack.count for pack in run.model.feedforward.experts) == 8
    assert run.model.feedforward.experts_per_token == 2
    assert run.tokenizer.kind == "characters"
    assert count(settings("quickstart", None, "model.vocab_size=80").model).parameters < 4_000_000


def architecture(part: object) -> object:
    """Return a part of settings without its sizes: the kinds, and what is on or off."""
    if isinstance(part, dict):
        return {key: architecture(value) for key, value in part.items() if key not in SIZES}
    if isinstance(part, list | tuple):
        return [architecture(each) for each in part]
    return part


SIZES = {
    "layers", "width", "context", "vocab_size", "heads", "kv_rank", "query_rank", "nope_dim",
    "rope_dim", "value_dim", "latents", "chunk", "window", "rank", "rows", "dim", "rate", "order",
    "entries",
}  # fmt: skip


OURS = ("quickstart", "sonnet")  # presets of no other system


def test_a_preset_laid_over_another_changes_what_it_names(tmp_path):
    ours, base = settings("sonnet", None), settings("quickstart", None)
    assert ours.model == base.model
    assert [each.kind for each in ours.data.clean] == ["verse"]
    assert settings("sonnet", "tiny").train.steps == settings("quickstart", "tiny").train.steps
    assert preset_scales("sonnet") == preset_scales("quickstart")
    file = tmp_path / "mine.yaml"
    file.write_text("extends: sonnet\ntrain: {steps: 7}\nscales: {two: {train: {steps: 2}}}\n")
    names = [layer.name for layer in preset_layers(str(file))]
    assert [name.split()[-1] for name in names[:2]] == ["quickstart", "sonnet"]
    assert len(names) == 3
    assert preset_layers(str(file), "two")[-1].name.endswith("at scale two")
    with pytest.raises(SettingsError, match="no scale “three”"):
        preset_layers(str(file), "three")
    file.write_text("extends: quickstrat\n")
    with pytest.raises(SettingsError, match="did you mean “quickstart”"):
        preset_layers(str(file))


@pytest.mark.parametrize("name", preset_names())
def test_a_tiny_twin_differs_in_sizes_alone(name):
    full, tiny = (settings(name, scale) for scale in (None, "tiny"))
    ours, theirs = (run.model.model_dump(mode="json") for run in (tiny, full))
    for model in (ours, theirs):
        if name in OURS:  # four experts in place of eight
            model["feedforward"]["experts"][0].pop("count")
    assert architecture(ours) == architecture(theirs)
    assert tiny.model.dropout == full.model.dropout
    rate = {"learning_rate": full.train.optimizer.learning_rate}
    assert tiny.train.optimizer.model_copy(update=rate) == full.train.optimizer
    assert tiny.train.clip == full.train.clip
    assert tiny.train.checkpoint_first == full.train.checkpoint_first
    assert tiny.sample.model_copy(update={"cache": full.sample.cache}) == full.sample
    assert type(tiny.sample.cache) is type(full.sample.cache)


@pytest.mark.parametrize("name", [name for name in preset_names() if name not in OURS])
def test_departures_are_told_and_have_their_section(name, pytestconfig):
    told = preset_departures(name)
    assert told
    page = (pytestconfig.rootpath / "docs" / "presets.md").read_text(encoding="utf-8")
    assert f"\n## {name}\n" in page


def test_departures_of_ones_own_file_are_read_and_checked(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {layers: 2, width: 16, context: 8}\ndepartures: [It is small.]\n")
    assert preset_departures(str(file)) == ["It is small."]
    assert "departures" not in preset_layers(str(file))[0].values
    file.write_text("model: {layers: 2, width: 16, context: 8}\ndepartures: 3\n")
    with pytest.raises(SettingsError, match="not a list of sentences"):
        preset_departures(str(file))
