"""Eager correctness: the same model on the device in its precision, on the CPU in float64."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from coterie.model import Decoder, DecoderSettings
from gpu_checks import names
from gpu_checks.registry import Bench, Cases, SkipError, check, distance, near

LENGTH, ROWS = 150, 3  # no multiple of any kernel's tile
MASKS: dict[str, dict[str, Any]] = {
    "all": {},
    "window": {"window": 37},
    "sinks": {"window": 37, "sinks": 3},
    "strided": {"sparse": {"kind": "strided", "stride": 7}},
    "dilated": {"window": 60, "sinks": 2, "sparse": {"kind": "dilated", "stride": 3}},
    "blocks": {"sparse": {"kind": "blocks", "size": 16}},
}
EXACT, HALF = 2e-4, 4e-2  # relative distances allowed in float32, and with 16-bit products
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def draw(vocabulary: int, rows: int = ROWS, length: int = LENGTH) -> Tensor:
    """Return random tokens on the CPU."""
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(3))


def packed(rows: int = ROWS, length: int = LENGTH) -> Tensor:
    """Return documents that begin at other places in every row."""
    at = torch.arange(length)
    return torch.stack([(at >= 20 + 11 * row).long() + (at >= 90 + row).long()
                        for row in range(rows)])  # fmt: skip


def passes(
    decoder: Decoder, device: str, precision: str, tokens: Tensor, documents: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and the gradients of one training pass, without anything random in it."""
    twin = copy.deepcopy(decoder).to(device)
    twin = twin.double() if precision == "float64" else twin.float()
    tokens = tokens.to(device)
    documents = None if documents is None else documents.to(device)
    with torch.autocast(device, HALVES.get(precision), enabled=precision in HALVES):
        loss = names.loss_of(names.forward(twin, tokens, tokens.roll(-1, 1), documents))
    (loss / tokens.numel()).backward()
    return loss.detach(), {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}


def logits_of(
    decoder: Decoder, device: str, precision: str, tokens: Tensor, documents: Tensor | None = None
) -> Tensor:
    """Return the logits."""
    twin = copy.deepcopy(decoder).to(device)
    twin = twin.double() if precision == "float64" else twin.float()
    documents = None if documents is None else documents.to(device)
    with torch.no_grad(), torch.autocast(
        device, HALVES.get(precision), enabled=precision in HALVES
    ):  # fmt: skip
        logits = names.forward(twin, tokens.to(device), None, documents).logits
    assert logits is not None
    return logits


def compare(
    bench: Bench,
    decoder: Decoder,
    reference: Decoder,
    precision: str,
    documents: Tensor | None = None,
) -> dict[str, float]:
    """Return how far logits and gradients are from the reference in float64, within bounds."""
    tokens = draw(decoder.settings.known_vocab_size())
    bound = HALF if precision in HALVES else EXACT
    args = (tokens, documents)
    far = {
        "logits": near(
            "the logits", logits_of(decoder, bench.device, precision, *args),
            logits_of(reference, "cpu", "float64", *args), bound,
        )
    }  # fmt: skip
    _, found = passes(decoder, bench.device, precision, *args)
    _, expected = passes(reference, "cpu", "float64", *args)
    assert set(found) == set(expected), f"gradients of {set(found) ^ set(expected)}"
    both = [torch.cat([g[name].cpu().double().flatten() for name in expected])
            for g in (found, expected)]  # fmt: skip
    far["gradients"] = near("the gradient", *both, bound)
    return {key: float(f"{value:.1e}") for key, value in far.items()}


def with_backend(backend: str, mask: dict[str, Any], seed: int = 0) -> Decoder:
    """Return a decoder whose attention is computed by a back end."""
    attention = {"kind": "grouped", "heads": 4, "kv_heads": 2, "backend": backend} | mask
    return names.build(names.decoder_settings(attention=attention), seed=seed)


def check_backend(bench: Bench, backend: str, precisions: tuple[str, ...]) -> dict[str, Any]:
    """Compare a back end with the dense one, for each mask, plain and packed."""
    cases = Cases(bench)
    for mask, settings in bench.some(MASKS.items(), 2):
        reference = with_backend("dense", settings)
        for precision in bench.some(precisions):
            for kind, documents in bench.some((("", None), (" packed", packed()))):
                name = f"{mask}{kind} {precision}"
                with cases(name):
                    decoder = with_backend(backend, settings)
                    cases.figures[name] = compare(bench, decoder, reference, precision, documents)
    return cases.result()


@check("attention.dense", "correct")
def dense(bench: Bench) -> dict[str, Any]:
    return check_backend(bench, "dense", ("float32", "bfloat16"))


@check("attention.sdpa", "correct")
def sdpa(bench: Bench) -> dict[str, Any]:
    return check_backend(bench, "sdpa", ("float32", "bfloat16", "float16"))


@check("attention.blocked", "correct")
def blocked(bench: Bench) -> dict[str, Any]:
    return check_backend(bench, "blocked", ("float32", "bfloat16"))


@check("attention.auto", "correct")
def auto(bench: Bench) -> dict[str, Any]:
    return check_backend(bench, "auto", ("float32", "bfloat16"))


@check("attention.flash", "correct")
def flash(bench: Bench) -> dict[str, Any]:
    try:
        import flash_attn  # noqa: F401, PLC0415
    except ImportError as error:
        raise SkipError("flash-attn is not installed") from error
    cases = Cases(bench)
    for mask in ("all", "window"):
        for kind, documents in (("", None), (" packed", packed())):
            name = f"{mask}{kind}"
            with cases(name):
                cases.figures[name] = compare(
                    bench, with_backend("flash", MASKS[mask]),
                    with_backend("dense", MASKS[mask]), "bfloat16", documents,
                )  # fmt: skip
    return cases.result()


COMPUTES = ("loop", "grouped", "triton", "padded", "gather", "auto", "measured")
EXPERTS: dict[str, dict[str, Any]] = {
    "swiglu": names.moe(8, 96, 2, shared_experts=1),
    "two packs": {
        "kind": "moe", "experts_per_token": 3,
        "experts": [names.pack(5, names.swiglu(64, bias=True)),
                    names.pack(4, names.gelu(96, bias=True)), names.pack(1, {"kind": "null"})],
    },
    "odd width": names.moe(4, 50, 2),  # rows that are no multiple of 16 bytes
}  # fmt: skip


def with_experts(experts: str, compute: str, **changes: Any) -> Decoder:
    """Return one layer whose router reads exactly the same in every precision.

    Its attention writes zeros, for a rounded input would send near-ties to other experts.
    """
    feedforward = EXPERTS[experts] | {"kernel": compute} | changes
    decoder = names.build(names.decoder_settings(layers=1, feedforward=feedforward))
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".attention.output" in name:
                parameter.zero_()
    return decoder


def check_compute(bench: Bench, compute: str) -> dict[str, Any]:
    """Compare an expert computation with the loop in float64."""
    cases = Cases(bench)
    for experts in bench.some(EXPERTS, 2):
        for precision in bench.some(("float32", "bfloat16", "float16")):
            name = f"{experts} {precision}"
            with cases(name):
                cases.figures[name] = compare(
                    bench, with_experts(experts, compute), with_experts(experts, "loop"), precision
                )
    return cases.result()


for _compute in COMPUTES:
    check(f"experts.{_compute}", "correct")(
        lambda bench, compute=_compute: check_compute(bench, compute)
    )

WINDOW = {"kind": "grouped", "heads": 4, "kv_heads": 2, "window": 24, "sinks": 2}
PARTS: dict[str, dict[str, Any]] = {
    "mla": {"attention": {"kind": "mla", "heads": 4, "kv_rank": 32, "nope_dim": 16,
                          "rope_dim": 16}},
    "mla absorbed window": {"attention": {"kind": "mla", "heads": 4, "kv_rank": 32, "nope_dim": 16,
                                          "rope_dim": 16, "window": 40, "sinks": 2,
                                          "absorb": True}},
    "latent vectors": {"attention": {"kind": "latent_vectors", "heads": 4, "kv_heads": 2,
                                     "chunk": 32, "latents": 4}},
    "query-key norm": {"attention": {"kind": "grouped", "heads": 4, "kv_heads": 1,
                                     "query_key_norm": True}},
}  # fmt: skip


@check("model.attention-kinds", "correct")
def attention_kinds(bench: Bench) -> dict[str, Any]:
    """Compare latent attention and latent vectors."""
    cases = Cases(bench)
    for part, changes in bench.some(PARTS.items(), 3):
        for precision in bench.some(("float32", "bfloat16")):
            with cases(f"{part} {precision}"):
                decoder = names.build(names.decoder_settings(**changes))
                cases.figures[f"{part} {precision}"] = compare(bench, decoder, decoder, precision)
    return cases.result()


@check("model.unequal-rows", "correct")
def unequal_rows(bench: Bench) -> dict[str, Any]:
    """Rows of unequal length in one batch give the logits of each row alone."""
    cases, lengths = Cases(bench), (LENGTH, 1, 64, 97)
    tokens = draw(names.VOCABULARY, len(lengths))
    ways = {"grouped": {}, "window": {"attention": WINDOW}} | PARTS
    for name, changes in bench.some(ways.items(), 2):
        with cases(name), torch.no_grad():
            decoder = names.build(names.decoder_settings(**changes)).to(bench.device)
            padded = decoder(tokens.to(bench.device), None, names.ForwardContext(lengths=lengths))
            alone = [logits_of(decoder, bench.device, "float32", row[None, :length])
                     for row, length in zip(tokens, lengths, strict=True)]  # fmt: skip
            together = [row[:length] for row, length in zip(padded.logits, lengths, strict=True)]
            found, expected = (torch.cat([e.flatten() for e in each]) for each in (together, alone))
            cases.figures[name] = near("the logits", found, expected, EXACT)
    return cases.result()


@check("model.variants", "correct", limit=120)
def variants(bench: Bench) -> dict[str, Any]:
    """Compare every variant that the contract tests name, and train each once in bfloat16."""
    folder = Path(__file__).parents[2] / "tests" / "model" / "variants"
    files = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    if not files:
        raise SkipError("tests/model/variants is not there")
    base = {
        "layers": 2, "width": 16, "context": 160, "vocab_size": 23,
        "attention": {"kind": "grouped", "heads": 2}, "feedforward": names.dense(12),
        "initial": {"std": 0.2, "outputs": "plain"},
    }  # fmt: skip
    cases, worst = Cases(bench), {"logits": 0.0, "gradients": 0.0}
    found = [(n, c) for file in files for n, c in file["variants"].items()]
    for name, changes in found[:: 12 if bench.tiny else 1]:
        with cases(name):
            decoder = names.build(DecoderSettings.model_validate(base | changes))
            far = compare(bench, decoder, decoder, "float32")
            worst = {key: max(worst[key], far[key]) for key in worst}
            loss, gradients = passes(decoder.train(), bench.device, "bfloat16", draw(23))
            assert torch.isfinite(loss), "the loss in bfloat16 is not finite"
            assert all(torch.isfinite(g).all() for g in gradients.values()), "a gradient is not"
    cases.figures |= {"variants": len(found), "worst": worst}
    return cases.result()


@check("model.checkpointing", "correct")
def checkpointing(bench: Bench) -> dict[str, Any]:
    """Activation checkpointing changes neither loss nor gradients, dropout included."""
    cases = Cases(bench)
    moe = names.moe(4, 64, 2, balance={"kind": "auxiliary", "coefficient": 0.1})
    for precision in ("float32", "bfloat16"):
        with cases(precision):
            plain = names.build(names.decoder_settings(dropout=0.1, feedforward=moe)).train()
            again = copy.deepcopy(plain)
            names.set_checkpointing(again)
            found = []
            for decoder in (plain, again):
                torch.manual_seed(1)
                found.append(passes(decoder, bench.device, precision, draw(names.VOCABULARY)))
            (loss, expected), (other, gradients) = found
            far = max(distance(gradients[name], expected[name]) for name in expected)
            assert distance(other, loss) <= 1e-6, "the loss is another"
            assert far <= (1e-5 if precision == "float32" else HALF), f"gradients off by {far:.1e}"
            cases.figures[precision] = {"loss equal": torch.equal(loss, other), "gradients": far}
    return cases.result()


@check("model.repeats", "correct")
def repeats(bench: Bench) -> dict[str, Any]:
    """Tell what is equal bit by bit when the same pass is made twice; routing must be."""
    cases = Cases(bench)
    tokens = draw(names.VOCABULARY)
    for compute in COMPUTES[:4]:
        for precision in bench.some(("float32", "bfloat16")):
            with cases(f"{compute} {precision}"):
                decoder = names.build(names.decoder_settings(
                    feedforward=EXPERTS["swiglu"] | {"kernel": compute}))  # fmt: skip
                runs = [passes(decoder, bench.device, precision, tokens) for _ in range(3)]
                unequal = sorted({
                    name for _, gradients in runs[1:] for name, g in gradients.items()
                    if not torch.equal(g, runs[0][1][name])
                })  # fmt: skip
                cases.figures[f"{compute} {precision}"] = {
                    "loss equal": all(torch.equal(run[0], runs[0][0]) for run in runs),
                    "unequal gradients": unequal,
                }
                loads = [_loads(decoder, bench.device, precision, tokens) for _ in range(2)]
                assert torch.equal(*loads), "tokens were routed otherwise the second time"
    return cases.result()


def _loads(decoder: Decoder, device: str, precision: str, tokens: Tensor) -> Tensor:
    twin, tokens = copy.deepcopy(decoder).to(device), tokens.to(device)
    with torch.no_grad(), torch.autocast(
        device, HALVES.get(precision), enabled=precision in HALVES
    ):  # fmt: skip
        output = names.forward(twin, tokens, tokens)
    return torch.stack([each.load for each in names.routing_of(output)])


@check("model.deterministic", "correct")
def deterministic(bench: Bench) -> dict[str, Any]:
    """Tell which operations torch calls nondeterministic, and whether the mode mends them."""
    decoder = names.build(names.decoder_settings(feedforward=EXPERTS["swiglu"]))
    tokens, figures = draw(names.VOCABULARY), {}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            runs = [passes(decoder, bench.device, "bfloat16", tokens) for _ in range(2)]
        figures["warned of"] = sorted({str(each.message).split(" does not")[0][:120]
                                       for each in caught})  # fmt: skip
    finally:
        torch.use_deterministic_algorithms(False)
    (_, one), (_, other) = runs
    figures["unequal gradients"] = [n for n in one if not torch.equal(one[n], other[n])]
    return figures


@check("model.sliced-loss", "correct")
def sliced_loss(bench: Bench) -> dict[str, Any]:
    """The loss of many rows over a large vocabulary, computed a slice at a time."""
    vocabulary = 20_000 if bench.tiny else 50_000
    decoder = names.build(names.decoder_settings(layers=1, context=1024, vocab_size=vocabulary))
    tokens = draw(vocabulary, 2, 900)  # more logits than are computed at once
    with torch.no_grad():
        logits = logits_of(decoder, bench.device, "float32", tokens).float().flatten(0, 1)
        targets = tokens.roll(-1, 1).flatten().to(bench.device)
        whole = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss, gradients = passes(decoder, bench.device, "float32", tokens)
    assert all(torch.isfinite(g).all() for g in gradients.values())
    return {"off by": near("the loss", loss, whole, 1e-5)}
