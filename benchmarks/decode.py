"""Tokens per second of greedy decoding, one stream: our kernels, ours by torch, and transformers.

    python benchmarks/decode.py [--pairs 7] [--tokens 64] [--layers 8] [--threads 2]

One layer makes 7 M active parameters, 4 make 17 M, 8 make 29 M, 9 make 33 M.

Ours and the peer, a Mixtral of transformers with each of its expert implementations, have equal
sizes and the same weights, so all must write the same tokens; the script checks that they do. They
run in turns after a warm-up; printed are the medians, and the median and range of the pairwise
ratios (above 1: ours is faster), beside this machine's ceilings from the same run. What bounds
decoding is reading the active weights: bandwidth of a matrix-vector product / active bytes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.utils import logging

from coterie.generate import Engine, SamplingSettings
from coterie.model import Decoder, DecoderSettings, count
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN

VOCABULARY = 8192
Way = Callable[[], list[int]]


def build_ours(layers: int, context: int) -> Decoder:
    """Return our decoder: 512 wide, 8 heads over 4, 2 of 8 SwiGLU experts of 768."""
    settings = DecoderSettings.model_validate({
        "layers": layers, "width": 512, "context": context, "vocab_size": VOCABULARY,
        "attention": {"kind": "grouped", "heads": 8, "kv_heads": 4},
        "feedforward": {
            "kind": "moe", "experts_per_token": 2,
            "experts": [{"count": 8, "mlp": {"kind": "gated", "width": 768}}],
        },
        "norm": {"kind": "rms", "epsilon": 1e-5}, "head": {"tied": False},
    })  # fmt: skip
    return settings.build(torch.Generator().manual_seed(0)).eval()


@torch.no_grad()
def build_peer(ours: Decoder) -> MixtralForCausalLM:
    """Return a Mixtral with the sizes and weights of ours."""
    settings = ours.settings
    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=settings.width, intermediate_size=768,
        num_hidden_layers=settings.layers, num_attention_heads=8, num_key_value_heads=4,
        num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=settings.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, rms_norm_eps=1e-5,
        sliding_window=None, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    peer = MixtralForCausalLM(config).eval()
    weights = dict(ours.named_parameters())
    state = {
        "model.embed_tokens.weight": weights["embedding.weight"],
        "model.norm.weight": weights["norm.weight"],
        "lm_head.weight": weights["head.weight"],
    }
    names = {
        "input_layernorm.weight": "attention_norm.weight",
        "post_attention_layernorm.weight": "feedforward_norm.weight",
        "self_attn.q_proj.weight": "attention.query",
        "self_attn.k_proj.weight": "attention.key",
        "self_attn.v_proj.weight": "attention.value",
        "self_attn.o_proj.weight": "attention.output",
        "mlp.gate.weight": "feedforward.router.weight",
        "mlp.experts.down_proj": "feedforward.experts.0.down",
    }
    for layer in range(settings.layers):
        block, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        state |= {f"{theirs}.{name}": weights[f"{block}.{own}"] for name, own in names.items()}
        experts = f"{block}.feedforward.experts.0"
        state[f"{theirs}.mlp.experts.gate_up_proj"] = torch.cat(
            (weights[f"{experts}.gate"], weights[f"{experts}.up"]), dim=1
        )
    peer.load_state_dict(state)
    return peer


def our_way(
    decoder: Decoder, prompt: torch.Tensor, tokens: int, cache: str, compute: str = "torch"
) -> Way:
    """Return greedy decoding by our engine, text and all."""
    alphabet = "".join(chr(0x4E00 + number) for number in range(VOCABULARY - 2))
    engine = Engine(decoder, CharacterTokenizer(alphabet, [END_OF_TEXT, UNKNOWN]))
    text = engine.tokenizer.decode(prompt[0].tolist())
    settings = SamplingSettings.model_validate(
        {"temperature": 0, "max_tokens": tokens, "cache": cache, "compute": compute}
    )
    return lambda: list(engine.generate(text, settings).tokens)


def their_way(model: MixtralForCausalLM, prompt: torch.Tensor, tokens: int, experts: str) -> Way:
    """Return greedy decoding by transformers with one of its expert implementations."""

    def generate() -> list[int]:
        model.set_experts_implementation(experts)
        with torch.inference_mode():
            whole = model.generate(
                prompt, max_new_tokens=tokens, do_sample=False, use_cache=True,
                attention_mask=torch.ones_like(prompt),
            )  # fmt: skip
        return whole[0, prompt.shape[1] :].tolist()

    return generate


def seconds(way: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def best(way: Callable[[], object], tries: int = 5) -> float:
    """Return the shortest of several calls, for ceilings."""
    return min(seconds(way) for _ in range(tries))


def products(dtype: torch.dtype) -> float:
    """Return the rate of matrix products, FLOP/s: of 2048³, or of 512³ where those are slow."""
    for side in (512, 2048):
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        rate = 2 * side**3 / best(lambda a=a, b=b: a @ b, tries=3)
        if rate < 5e9:
            break
    return rate


def print_ceilings(active_bytes: int) -> float:
    """Print what this machine can do at most; return the bound on decoding in tokens/s."""
    product, product_half = (products(dtype) for dtype in (torch.float32, torch.bfloat16))
    source = torch.randn(1 << 27)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / best(lambda: target.copy_(source))
    matrix, vector = source.view(1 << 13, -1), torch.randn(1 << 14)
    read = source.nbytes / best(lambda: matrix @ vector)
    print(
        f"ceilings with {torch.get_num_threads()} threads: products float32 "
        f"{product / 1e9:.0f}, bfloat16 {product_half / 1e9:.1f} GFLOP/s; copy of 512 MB "
        f"{copy / 1e9:.1f} GB/s; matrix-vector read {read / 1e9:.1f} GB/s"
    )
    return read / active_bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    logging.set_verbosity_error()
    decoder = build_ours(asked.layers, context=512)
    prompt = torch.randint(0, VOCABULARY - 2, (1, 32), generator=torch.Generator().manual_seed(1))
    sizes = count(decoder.settings)
    print(f"{sizes.parameters:,} parameters, {sizes.active_parameters:,} active, float32")
    bound = print_ceilings(4 * sizes.active_parameters)
    ways = {
        "ours, native": our_way(decoder, prompt, asked.tokens, "full", "native"),
        "ours, torch": our_way(decoder, prompt, asked.tokens, "full"),
    }
    peer = build_peer(decoder)
    for experts in ("eager", "batched_mm", "grouped_mm"):
        ways[f"transformers, {experts}"] = their_way(peer, prompt, asked.tokens, experts)
    written = {name: way() for name, way in ways.items()}  # the warm-up
    first = written["ours, native"]
    rounds = [{name: seconds(way) for name, way in ways.items()} for _ in range(asked.pairs)]
    print(f"\n{asked.tokens} tokens after a prompt of {prompt.shape[1]}, {asked.pairs} rounds")
    print(f"{'':26}{'tokens/s':>9}{'of bound':>10}{'ours is':>9}   {'range':12} same tokens")
    for name in ways:
        rate = asked.tokens / statistics.median(each[name] for each in rounds)
        ratios = [each[name] / each["ours, native"] for each in rounds]
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        same = sum(a == b for a, b in zip(first, written[name], strict=True))
        print(
            f"{name:26}{rate:9.1f}{rate / bound:10.0%}{statistics.median(ratios):8.2f}×   "
            f"{spread:12} {same}/{asked.tokens}"
        )
    print(f"bound by reading the active weights: {bound:.0f} tokens/s")


if __name__ == "__main__":
    main()
