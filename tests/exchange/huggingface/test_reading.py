"""The same weights laid out otherwise: fused experts, shards, other prefixes, copies and masks."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from coterie.exchange.files import SINGLE
from coterie.exchange.huggingface import export_folder, import_folder
from coterie.exchange.imported import ExchangeError


@pytest.fixture
def rewritten(foreign, tmp_path):
    """Save a tiny model, change its tensors by a function, and return both imports."""

    def rewrite(kind, change, **changes):
        foreign(kind, **changes).save_pretrained(tmp_path)
        before = import_folder(tmp_path)
        weights = tmp_path / "model.safetensors"
        save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
        return before, import_folder(tmp_path)

    return rewrite


def same(one, other):
    ours, theirs = one.decoder.state_dict(), other.decoder.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def fused(names, count, place):
    """Return a change that joins numbered experts to what transformers holds in memory."""

    def change(tensors):
        tensors = dict(tensors)
        for layer in {name.split(".experts.")[0] for name in tensors if ".experts." in name}:
            gate, up, down = (
                [tensors.pop(f"{layer}.experts.{e}.{name}.weight") for e in range(count)]
                for name in names
            )
            new = layer.replace("block_sparse_moe", place)
            both = [torch.cat(pair) for pair in zip(gate, up, strict=True)]
            tensors[f"{new}.experts.gate_up_proj"] = torch.stack(both)
            tensors[f"{new}.experts.down_proj"] = torch.stack(down)
        return tensors

    return change


@pytest.mark.parametrize(
    "kind", ["olmoe", "qwen2_moe", "qwen3_moe", "glm4_moe", "deepseek_v2", "deepseek_v3"]
)
def test_fused_experts_are_read(kind, rewritten):
    count = 6 if kind in ("olmoe", "qwen2_moe", "qwen3_moe") else 8
    change = fused(("gate_proj", "up_proj", "down_proj"), count, "mlp")
    assert same(*rewritten(kind, change))


@pytest.mark.parametrize("fuse", [True, False])
def test_both_names_of_mixtral_are_read(fuse, rewritten):
    def renamed(tensors):
        return {name.replace("block_sparse_moe", "mlp"): each for name, each in tensors.items()}

    join = fused(("w1", "w3", "w2"), 5, "mlp")
    assert same(*rewritten("mixtral", (lambda x: renamed(join(x))) if fuse else renamed))


def test_a_body_without_its_head_is_read(rewritten):
    def bare(tensors):
        return {name.removeprefix("transformer."): each for name, each in tensors.items()}

    assert same(*rewritten("gpt2", bare))


def test_masks_and_frequencies_are_left_out(rewritten):
    def more(tensors):
        mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4).tril()}
        return tensors | mask | {"transformer.h.1.attn.masked_bias": torch.tensor(-1e4)}

    before, after = rewritten("gpt2", more)
    assert same(before, after)
    assert after.notes == ()


def test_a_tied_head_may_be_written_out(rewritten):
    def doubled(tensors):
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    assert same(*rewritten("llama", doubled, tie_word_embeddings=True))


def with_module(tensors, **changes):
    """Return tensors with an MTP module under its published names, after layers 0 and 1."""
    last, new = "model.layers.1.", "model.layers.2."
    module = {new + x.removeprefix(last): y * 0.9 for x, y in tensors.items() if last in x}
    ends = {name: torch.linspace(0.5, 1.5, 32) for name in ("enorm", "hnorm", "shared_head.norm")}
    module |= {f"{new}{name}.weight": each for name, each in ends.items()}
    module[f"{new}eh_proj.weight"] = torch.randn(32, 64) * 0.2
    module[f"{new}embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    module[f"{new}shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return tensors | module | {new + name: each for name, each in changes.items()}


def module_logits(model, tensors, tokens):
    """Return what transformers' own parts make of a module's tensors."""
    new = "model.layers.2."
    own = {name.removeprefix(new): each for name, each in tensors.items() if new in name}
    hidden = model.model(tokens).last_hidden_state[:, :-1]
    later = model.model.embed_tokens(tokens)[:, 1:]
    once = copy.deepcopy(model)
    norm, layer = once.model.norm, once.model.layers[1]

    def normal(x, name):
        norm.weight.copy_(own[f"{name}.weight"])
        return norm(x)

    both = torch.cat((normal(later, "enorm"), normal(hidden, "hnorm")), dim=-1)
    norm.weight.copy_(own["shared_head.norm.weight"])
    for name, parameter in layer.named_parameters():
        if "experts" not in name or "shared" in name:
            parameter.copy_(own[name])
        else:
            parameter.mul_(0.9)
    layer.mlp.gate.e_score_correction_bias.copy_(own["mlp.gate.e_score_correction_bias"])
    once.model.layers = torch.nn.ModuleList([layer])
    return once(inputs_embeds=both @ own["eh_proj.weight"].mT).logits


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe"])
@torch.no_grad()
def test_mtp_modules_are_kept(kind, foreign, tokens, tmp_path):
    model = foreign(kind)
    model.save_pretrained(tmp_path / "theirs")
    plain = import_folder(tmp_path / "theirs")
    weights = tmp_path / "theirs" / "model.safetensors"
    save_file(tensors := with_module(load_file(weights)), weights, metadata={"format": "pt"})
    found, x = import_folder(tmp_path / "theirs"), tokens(2, 12)
    assert found.notes == ()
    assert len(plain.decoder.mtp) == 0
    assert torch.equal(found.decoder(x).logits, plain.decoder(x).logits)
    guessed = found.decoder.predict_mtp(x)[0]
    assert (guessed - module_logits(model, tensors, x)).abs().max() <= 2e-5
    export_folder(found.decoder, None, tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    again = import_folder(tmp_path / "ours")
    assert again.decoder.settings == found.decoder.settings
    assert same(again, found)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", experts_implementation="eager")
    assert (theirs(x).logits - model(x).logits).abs().max() <= 2e-5


@pytest.mark.parametrize(
    ("changes", "settings", "note"),
    [
        ({"embed_tokens.weight": torch.ones(61, 32)}, {}, "2.embed_tokens.weight differs from"),
        ({"shared_head.head.weight": torch.ones(61, 32)}, {}, "head.weight differs from lm_head"),
        ({}, {"num_nextn_predict_layers": 0}, "config.json speaks of 0"),
    ],
)
def test_mtp_modules_that_cannot_be_held_are_left_out(changes, settings, note, rewritten):
    kept = lambda tensors: with_module(tensors, **changes)  # noqa: E731
    before, after = rewritten("deepseek_v3", kept, **settings)
    assert same(before, after)
    assert "MTP modules were left out" in after.notes[0]
    assert note in after.notes[0]


def test_an_mtp_module_with_holes_is_refused(rewritten):
    def holes(tensors):
        whole = with_module(tensors)
        return {name: each for name, each in whole.items() if "2.hnorm" not in name}

    with pytest.raises(ExchangeError, match=r"1 tensors are missing: model\.layers\.2\.hnorm"):
        rewritten("deepseek_v3", holes)


def test_shards_are_read(foreign, tmp_path):
    model = foreign("mixtral")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert same(import_folder(tmp_path / "one"), import_folder(tmp_path / "many"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_become_float32_exactly(dtype, foreign, tmp_path):
    model = foreign("glm4_moe").to(dtype)
    model.save_pretrained(tmp_path)
    wide, kept = import_folder(tmp_path), import_folder(tmp_path, dtype=None)
    assert wide.notes == (f"weights of {str(dtype)[6:]} became float32, exactly",)
    assert kept.notes == ()
    assert wide.decoder.embedding.weight.dtype == torch.float32
    assert kept.decoder.embedding.weight.dtype == dtype
    assert torch.equal(wide.decoder.embedding.weight.to(dtype), kept.decoder.embedding.weight)
    assert kept.decoder.blocks[1].feedforward.balance.selection_bias.dtype == torch.float32


def test_values_no_one_reads_are_mentioned(foreign, tmp_path):
    foreign("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"my_favourite": 3, "none": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert import_folder(tmp_path).notes == (
        "my_favourite in config.json is not read by this architecture",
    )


def change_tensors(folder, change):
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


QUERY = "model.layers.1.self_attn.q_proj.weight"


def test_a_place_that_does_not_exist(refused, tmp_path):
    assert "There is no" in refused(tmp_path / "nowhere")


def test_a_folder_without_a_configuration(refused, folder):
    (folder / "config.json").unlink()
    assert "no config.json" in refused()


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"', "\udcff", "[" * 100_000])
def test_a_configuration_that_is_none(refused, folder, content):
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refused()


def test_weights_that_are_no_floating_point(refused, folder):
    change_tensors(folder, lambda x: x.update({QUERY: torch.ones(16, 16, dtype=torch.int8)}))
    assert "stored as I8" in refused()


def test_a_tied_head_that_differs(refused, folder):
    change_config(folder, tie_word_embeddings=True)
    assert "lm_head.weight and model.embed_tokens.weight differ" in refused()


def test_a_run_of_our_own(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1\n")
    assert "a run or checkpoint of Coterie already" in refused(tmp_path / "run")


def test_a_single_file(refused, folder):
    assert "Name the folder" in refused(folder / SINGLE)


def test_a_damaged_tokenizer(folder):
    from coterie.foundation.errors import TokenizerError

    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        import_folder(folder)
