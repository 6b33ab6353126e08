"""Files that are not ours: imported models compute what transformers computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.exchange.gguf import import_file
from tests.exchange.gguf.conftest import (
    FOREIGN,
    foreign_tensors,
    foreign_values,
    gguf,
    make_foreign,
    refusal,
    write_gguf,
)

TOLERANCE = 2e-5  # float32 against float32


@pytest.mark.parametrize("model_type", FOREIGN)
def test_logits_equal_those_of_transformers(model_type, tmp_path, tokens):
    model, architecture, said = make_foreign(model_type)
    file = write_gguf(
        tmp_path / "model.gguf", architecture, foreign_values(model.config, said),
        foreign_tensors(model, architecture),
    )  # fmt: skip
    imported = import_file(file)
    assert imported.architecture == architecture
    assert imported.tokenizer is None
    assert imported.notes == ("the file holds no tokenizer",)
    with torch.no_grad():
        ours, theirs = imported.decoder(tokens).logits, model(tokens).logits
    assert torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    assert theirs.std() > 0.1  # the comparison is not one of zeros


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_blocks_are_opened_as_their_makers_define(kind, tmp_path, tokens):
    """The reference computes with the values that the `gguf` library reads back."""
    model, architecture, said = make_foreign("mixtral")
    tensors = foreign_tensors(model, architecture)
    matrices = [name for name, each in tensors.items() if each.ndim > 1 and "inp" not in name]
    number = gguf.GGMLQuantizationType[kind]
    opened = {
        name: gguf.quants.dequantize(gguf.quants.quantize(tensors[name], number), number)
        for name in matrices
    }
    values = foreign_values(model.config, said)
    packed = write_gguf(
        tmp_path / "packed.gguf", architecture, values, tensors, dict.fromkeys(matrices, kind)
    )
    plain = write_gguf(tmp_path / "plain.gguf", architecture, values, tensors | opened)
    imported, reference = import_file(packed), import_file(plain)
    assert any(kind in note and note.endswith("became float32") for note in imported.notes)
    for name, tensor in reference.decoder.state_dict().items():
        assert torch.equal(imported.decoder.state_dict()[name], tensor), name


def test_a_scaling_that_a_file_says_by_factors_is_found(tmp_path, tokens):
    """Llama 3's factors, as published: four numbers from a tensor, and the same logits beyond."""
    scaling = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    changes = {"head_dim": 32, "rope_parameters": scaling, "max_position_embeddings": 65536}
    model, architecture, said = make_foreign("llama", **changes)
    plain = 10000.0 ** (-np.arange(0, 32, 2) / 32)
    factors = plain / model.model.rotary_emb.inv_freq.numpy()
    tensors = {**foreign_tensors(model, architecture), "rope_freqs.weight": np.float32(factors)}
    file = write_gguf(
        tmp_path / "model.gguf", architecture, foreign_values(model.config, said), tensors
    )
    decoder = import_file(file).decoder
    assert decoder.settings.position.scaling.kind == "llama3"
    assert decoder.settings.position.scaling.original_context == 8192
    with torch.no_grad():
        assert torch.allclose(decoder(tokens).logits, model(tokens).logits, atol=TOLERANCE)


def test_older_files_hold_every_expert_by_itself(tmp_path, tokens):
    model, architecture, said = make_foreign("mixtral")
    tensors = foreign_tensors(model, architecture)
    apart = {}
    for name, tensor in tensors.items():
        if "_exps" in name:
            apart |= {name.replace("_exps", f".{e}"): one for e, one in enumerate(tensor)}
        else:
            apart[name] = tensor
    values = foreign_values(model.config, said)
    new = import_file(write_gguf(tmp_path / "new.gguf", architecture, values, tensors))
    old = import_file(write_gguf(tmp_path / "old.gguf", architecture, values, apart))
    assert torch.equal(new.decoder(tokens).logits, old.decoder(tokens).logits)


def test_unknown_architectures_name_the_nearest(write):
    words = refusal(write("lama"))
    assert "architecture “lama”" in words
    assert "did you mean “llama”?" in words


def test_missing_left_over_and_misshapen_tensors_are_all_named(write):
    wrong = {"blk.0.ffn_up.weight": torch.ones(32, 8).numpy(), "extra": torch.ones(3).numpy()}
    words = refusal(write(left_out=["blk.0.attn_k.weight"], added=wrong))
    assert "1 tensors are missing: blk.0.attn_k.weight" in words
    assert "1 tensors are unexpected: extra" in words
    assert "blk.0.ffn_up.weight has shape [32, 8] instead of [32, 16]" in words
