"""Living bytes are counted by part, from a tensor's making until it is freed."""

import torch

from coterie.train.live_memory import LiveMemory
from coterie.train.precision import resolve_precision
from coterie.train.roles import role_parameters
from coterie.train.session import make_stepper


def test_memory_counts_once_until_it_is_freed():
    live = LiveMemory()
    with live:
        whole = torch.ones(256)
        view = whole[:10]
        other = torch.ones(64)
        assert sum(live.live.values()) == 1024 + 256
        del whole
        assert sum(live.live.values()) == 1024 + 256  # the view is the same memory
        del view
        assert sum(live.live.values()) == 256
    del other
    assert sum(live.live.values()) == 0
    assert sum(live.peak.values()) == 1024 + 256


def test_a_watched_step_is_told_by_part_and_is_the_same_step(tiny, batch_of):
    run = tiny(model={"vocab_size": 300}, train={"precision": "float32"})
    batch, norms, live = batch_of(run), [], LiveMemory()
    for watched in (False, True):
        torch.manual_seed(0)
        decoder = run.model.build().train()
        optimizer = run.train.optimizer.build(role_parameters(decoder))
        precision = resolve_precision("float32", torch.device("cpu"))
        stepper = make_stepper(run, decoder, optimizer, precision)
        if watched:
            with live.watching(stepper):
                norms.append(stepper(0, batch).gradient_norm)
        else:
            norms.append(stepper(0, batch).gradient_norm)
    assert norms[0] == norms[1]
    held = 4 * sum(p.tensor.numel() for p in role_parameters(decoder))
    assert live.peaks["update"]["gradients"] == held
    assert {"attention", "experts", "router", "norms", "head and loss"} <= live.peaks[
        "forward"
    ].keys()
    assert live.live["gradients"] == 0
    assert not decoder.blocks[0]._forward_hooks
    assert "forward" not in vars(decoder.blocks[0])
