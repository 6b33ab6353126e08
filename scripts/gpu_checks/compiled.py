"""What goes through Inductor: FlexAttention and whole decoders."""

from __future__ import annotations

import time
from typing import Any

import torch

from gpu_checks import names
from gpu_checks.correct import (
    EXACT,
    EXPERTS,
    HALF,
    HALVES,
    MASKS,
    PARTS,
    compare,
    draw,
    logits_of,
    packed,
    with_backend,
)
from gpu_checks.registry import Bench, Cases, check, distance, near

_FLEX = [  # (mask, packed, precision): each is a kernel of its own, most wanted first
    ("all", False, "bfloat16"), ("window", False, "bfloat16"), ("all", True, "bfloat16"),
    ("all", False, "float32"), ("blocks", False, "bfloat16"), ("sinks", True, "bfloat16"),
    ("dilated", False, "bfloat16"), ("strided", False, "bfloat16"), ("sinks", False, "bfloat16"),
]  # fmt: skip


@check("attention.flex", "flex", limit=240)
def flex(bench: Bench) -> dict[str, Any]:
    """Compare FlexAttention, forward and backward; on the CPU it has no backward."""
    cases = Cases(bench)
    for mask, documents, precision in bench.some(_FLEX, 3):
        name = f"{mask}{' packed' if documents else ''} {precision}"
        with cases(name):
            decoder, reference = (with_backend(kind, MASKS[mask]) for kind in ("flex", "dense"))
            begin, parts = time.perf_counter(), packed() if documents else None
            if bench.cuda:
                far = compare(bench, decoder, reference, precision, parts)
            else:
                tokens = draw(names.VOCABULARY)
                found = logits_of(decoder, "cpu", "float32", tokens, parts)
                expected = logits_of(reference, "cpu", "float64", tokens, parts)
                far = {"logits": near("the logits", found, expected, EXACT)}
            cases.figures[name] = far | {"seconds": round(time.perf_counter() - begin, 1)}
    return cases.result()


@check("attention.measured", "flex", limit=120)
def measured(bench: Bench) -> dict[str, Any]:
    """Compare the back end chosen by measurement, which tries all others, flex included."""
    cases = Cases(bench)
    for mask in bench.some(("all", "window")):
        with cases(mask):
            cases.figures[mask] = compare(
                bench, with_backend("measured", MASKS[mask]),
                with_backend("dense", MASKS[mask]), "bfloat16",
            )  # fmt: skip
    return cases.result()


DECODERS: dict[str, dict[str, Any]] = {
    "dense": {},
    "experts": {"feedforward": EXPERTS["swiglu"]},
    "flex window": {"attention": {"kind": "grouped", "heads": 4, "window": 37, "backend": "flex"}},
    "mla": PARTS["mla"],
}


@check("compile.decoders", "compiled", limit=240)
def decoders(bench: Bench) -> dict[str, Any]:
    """Loss and gradients of compiled decoders are those of eager ones."""
    cases = Cases(bench)
    for name, changes in bench.some(DECODERS.items(), 2):
        for precision in bench.some(("float32", "bfloat16")):
            with cases(f"{name} {precision}"):
                torch._dynamo.reset()
                begin = time.perf_counter()
                far = _compiled_beside_eager(bench, changes, precision)
                far["seconds"] = round(time.perf_counter() - begin, 1)
                cases.figures[f"{name} {precision}"] = far
    return cases.result()


def _compiled_beside_eager(
    bench: Bench, changes: dict[str, Any], precision: str
) -> dict[str, float]:
    decoder = names.build(names.decoder_settings(**changes)).to(bench.device).train()
    tokens = draw(names.VOCABULARY).to(bench.device)
    found = []
    for forward in (decoder, torch.compile(decoder)):
        decoder.zero_grad()
        with torch.autocast(bench.device, HALVES.get(precision), enabled=precision in HALVES):
            loss = names.loss_of(names.forward(forward, tokens, tokens.roll(-1, 1)))
        (loss / tokens.numel()).backward()
        gradients = [p.grad.flatten() for p in decoder.parameters() if p.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    (loss, expected), (other, gradients) = found
    bound = EXACT if precision == "float32" else HALF
    far = {"loss": distance(other, loss), "gradients": distance(gradients, expected)}
    assert far["loss"] <= bound, f"the loss is off by {far['loss']:.1e}"
    assert far["gradients"] <= bound, f"the gradients are off by {far['gradients']:.1e}"
    return far
