"""Tiny models of ours, and GGUF files written from models of transformers as llama.cpp's tools do.

The second are made without the code under test: names come from the tables of the `gguf` library,
and the three places where matrices change on the way are written out here once more.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from coterie.exchange.gguf import import_file
from coterie.foundation.errors import UserError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
gguf = pytest.importorskip("gguf", reason="the test extra brings it")
transformers = pytest.importorskip("transformers", reason="the test extra brings it")
transformers.utils.logging.set_verbosity_error()

ROWS, CONTEXT = 272, 48  # 256 bytes, the end of a text, and rows without a token
COMMON = {
    "vocab_size": ROWS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1,
    "rms_norm_eps": 1e-6,  # what transformers takes for the latents, whatever it is told
}  # fmt: skip
FOREIGN = {
    "llama": ("llama", COMMON | {"attention_bias": True}, {}),
    "mixtral": (
        "llama",
        COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2},
        {"expert_count": 4, "expert_used_count": 2},
    ),
    "qwen2_moe": (
        "qwen2moe",
        COMMON | EXPERTS | {"shared_expert_intermediate_size": 48, "norm_topk_prob": False},
        {
            "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
            "expert_shared_feed_forward_length": 48,
        },
    ),
    "qwen3_moe": (
        "qwen3moe",
        COMMON | EXPERTS | {"head_dim": 12, "norm_topk_prob": True},
        {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32},
    ),
    "olmoe": (
        "olmoe",
        COMMON | EXPERTS | {"num_key_value_heads": 4, "norm_topk_prob": False},
        {"expert_count": 4, "expert_used_count": 2},
    ),
    "deepseek_v2": (
        "deepseek2",
        COMMON | LATENT | {"q_lora_rank": None, "topk_method": "greedy", "norm_topk_prob": False,
                           "routed_scaling_factor": 1.0},
        {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
         "expert_shared_count": 2, "leading_dense_block_count": 1},
    ),
    "deepseek_v3": (
        "deepseek2",
        COMMON | LATENT | {"q_lora_rank": 16, "n_group": 2, "topk_group": 1,
                           "norm_topk_prob": True, "routed_scaling_factor": 2.5},
        {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
         "expert_shared_count": 2, "leading_dense_block_count": 1, "expert_gating_func": 2,
         "expert_weights_norm": True, "expert_weights_scale": 2.5, "expert_group_count": 2,
         "expert_group_used_count": 1, "attention.q_lora_rank": 16},
    ),
}  # fmt: skip


def make_foreign(model_type: str, **changes):
    """Return a tiny model of transformers with random weights, and what a file says of it."""
    architecture, sizes, said = FOREIGN[model_type]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = transformers.AutoConfig.for_model(model_type, **sizes | changes)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if "inv_freq" not in name:
                    tensor.add_(torch.randn_like(tensor) * 0.1)
    return model, architecture, said


def foreign_tensors(model, architecture: str) -> dict[str, np.ndarray]:
    """Return a model's tensors under GGUF's names, changed as the converter changes them."""
    config = model.config
    kinds = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    found = {}
    for name, tensor in _unfused(model.state_dict()).items():
        tensor = tensor.detach().float()
        if architecture == "llama" and re.search(r"[qk]_proj\.(weight|bias)$", name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            tensor = _neighbours(tensor, heads)
        if name.endswith("kv_b_proj.weight"):
            both = tensor.unflatten(0, (config.num_attention_heads, -1))
            before = name.replace("kv_b_proj", "{}_b_proj")
            found[names.get_name(before.format("k"), (".weight",))] = (
                both[:, : config.qk_nope_head_dim].mT.contiguous().numpy()
            )
            found[names.get_name(before.format("v"), (".weight",))] = (
                both[:, config.qk_nope_head_dim :].contiguous().numpy()
            )
            continue
        if name.endswith("e_score_correction_bias"):
            name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        if name.endswith("shared_expert_gate.weight"):
            tensor = tensor.flatten()
        theirs = names.get_name(name, (".weight", ".bias"))
        assert theirs is not None, name
        found[theirs] = tensor.contiguous().numpy()
    return found


def _unfused(state):
    """Yield the experts of each matrix as one tensor, under the names of the converter."""
    found = {}
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            found[name.replace("gate_up_proj", "gate_proj.weight")] = gate
            found[name.replace("gate_up_proj", "up_proj.weight")] = up
        elif name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = tensor
        else:
            found[name] = tensor
    return found


def _neighbours(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the two rows that a position turns together beside each other."""
    rows = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, rows, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def foreign_values(config, said) -> dict:
    """Return what a file says of a model of transformers."""
    theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(theta), "rope.dimension_count": head_dim,
        "attention.key_length": head_dim, "attention.value_length": head_dim,
    }  # fmt: skip
    if hasattr(config, "kv_lora_rank"):
        values |= {
            "attention.head_count_kv": 1, "attention.kv_lora_rank": config.kv_lora_rank,
            "rope.dimension_count": config.qk_rope_head_dim,
            "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
            "attention.value_length": config.kv_lora_rank,
            "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
            "attention.value_length_mla": config.v_head_dim,
        }  # fmt: skip
    return values | said


def write_gguf(path, architecture, values, tensors, kinds=None, tokenizer=None):
    """Write a file with the `gguf` library; `kinds` names the type of some tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in {
        **{f"{architecture}.{name}": value for name, value in values.items()},
        **(tokenizer or {}),
    }.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
               str: writer.add_string}.get(type(value), writer.add_array)  # fmt: skip
        add(name, value)
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[(kinds or {}).get(name, "F32")]
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tokens():
    """Random tokens [2, 40]."""
    return torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


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


HARD = (
    "It's 12345 o'clock — naïve café\n\n  HE'LL pay £3.50?!  日本語 Ωμέγα 🙂👩‍👧\r\n"
    "\tdef f(x): return x**2  # ok <|im_end|>\n"
)
CORPUS = [HARD * 4, "To be, or not to be, that is the question. 2024 2025\n" * 20]


def trained(words, *specials, size=420):
    """Return byte-level BPE trained with a way to split words."""
    rules = tokenizers.Tokenizer(models.BPE(ignore_merges=words.whole))
    rules.pre_tokenizer = words.pre_tokenizer()
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    rules.train_from_iterator(CORPUS, trainer)
    return rules
