"""Planning from Python: what a run would be, and with which settings it fits into memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from coterie.api.given import layer_of, resolve
from coterie.data.augment import augmentations
from coterie.data.cache import all_texts, cached_store, ready_store
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer, overrides_layer
from coterie.foundation.runs import cache_root
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import BPE
from coterie.train.choices import choose_precision
from coterie.train.cluster import DEVICES, ClusterPlan, DeviceFigures, here, plan_cluster
from coterie.train.fitting import Fitting, Words, fit, usable
from coterie.train.machine import peak_flops
from coterie.train.memory import memory_of
from coterie.train.plan import Plan
from coterie.train.plan import plan as plan_of
from coterie.train.precision import Precision, resolve_device
from coterie.train.pretraining import fill_epochs, fill_tag_ids, fill_vocabulary_size
from coterie.train.settings import RunSettings


def plan(
    preset: str, settings: Mapping[str, Any] | None = None, *, memory: float | None = None
) -> Fitting:
    """Find the cheapest settings with which a run fits into memory; nothing is run.

        found = coterie.plan("s15era", memory=6)
        if found.proposal is not None:  # its words are those of `coterie train`
            print(found.proposal.words, found.proposal.costs)

    Args:
        preset: a preset's name, or the path of a settings file.
        settings: what to change of it, as for `coterie.train`.
        memory: of the device, in GiB; None: all that this one has.

    Raises:
        UserError: the run itself would be refused, or the memory is no size.
    """
    given = dict(settings or {})
    scale, mode = given.pop("scale", None), given.pop("mode", None)
    return fit_run(preset, [layer_of(given)] if given else [], scale, mode, memory)


def fit_run(
    preset: str, layers: Sequence[Layer], scale: str | None, mode: str | None, memory: float | None
) -> Fitting:
    """Find settings that fit, laid over the layers like further words of a command."""
    base = resolve(preset, layers, scale, mode).settings
    ready, vocab_size = _filled(base)
    ready = fill_vocabulary_size(ready, vocab_size)
    limit = _limit(memory, base)

    def change(words: Words) -> RunSettings:
        laid = [*layers, overrides_layer(words)] if words else layers
        train = resolve(preset, laid, scale, mode).settings.train
        return ready.model_copy(update={"train": train})

    return fit(change, limit)


def plan_devices(
    preset: str, layers: Sequence[Layer], scale: str | None, mode: str | None,
    gpus: int, nodes: int | None, device: str, memory: float | None,
) -> ClusterPlan:  # fmt: skip
    """Find the fastest layout of a run on many devices that fits; nothing is run.

    Args:
        preset, layers, scale, mode: of the run, as for `fit_run`.
        gpus: devices; nodes: over how many they are divided; None: 8 to a node.
        device: one of `DEVICES`, or `here`.
        memory: of a device, in GiB; None: all that it has.

    Raises:
        UserError: no such device, no layout divides the run, or the run itself would be refused.
    """
    settings, vocab_size = _filled(resolve(preset, layers, scale, mode).settings)
    settings = fill_vocabulary_size(settings, vocab_size)
    nodes = -(-gpus // 8) if nodes is None else nodes
    figures, precision = _figures(device, settings, max(1, gpus // max(1, nodes)))
    limit = _limit(figures.memory if memory is None else memory, settings)
    return plan_cluster(settings, figures, gpus, nodes, precision, limit)


def _figures(device: str, settings: RunSettings, per_node: int) -> tuple[DeviceFigures, Precision]:
    """Return what a device does, and the type of its products; kernels are this machine's.

    Here the processes of a node share the CPU, its cores and its memory.
    """
    if device != "here":
        if device not in DEVICES:
            raise UserError(
                f"There are no figures of a device “{device}”.",
                hint=f"Choose one of {', '.join(DEVICES)}, or here.",
            )
        asked = settings.train.precision
        name = "bfloat16" if asked == "auto" else asked
        return DEVICES[device], Precision(torch.device("cpu"), name, "the device's units")
    precision = choose_precision(settings, resolve_device(settings.train.device))
    rate = peak_flops(precision, measure=False) or peak_flops(precision)
    assert rate is not None
    sharing = per_node if precision.device.type == "cpu" else 1
    return here(rate / sharing, (memory_of(precision.device) or 0) / 2**30 / sharing), precision


def _limit(memory: float | None, settings: RunSettings) -> int:
    """Return how many bytes the device has, as told or as it is.

    Raises:
        UserError: that is no size, too little for the libraries alone, or cannot be told.
    """
    if memory is None:
        there = memory_of(resolve_device(settings.train.device))
        if there is None:
            raise UserError(
                "This device does not tell how much memory it has.", hint="Say GiB: --memory 12"
            )
        return there
    limit = round(memory * 2**30) if 0 < memory < 1e6 else 0
    if usable(limit) <= 0:
        raise UserError(
            f"{memory:g} GiB of memory hold no run: Python and torch alone take 0.3.",
            hint="Say the GiB of the device: --memory 12",
        )
    return limit


def make_plan(settings: RunSettings) -> Plan:
    """Return the plan of a run; reads its sources only as far as the vocabulary asks for it.

    Raises:
        UserError: the run itself would be refused: data, store, tokenizer or model do not fit.
    """
    settings, vocab_size = _filled(settings)
    return plan_of(settings, vocab_size=vocab_size)


def vocabulary(settings: RunSettings) -> int:
    """Return how many tokens the model will know, without preparing its data.

    Raises:
        UserError: the data cannot be read, or are a store that the run would refuse.
    """
    return settings.model.vocab_size or _tokenizer(settings).vocab_size


def _filled(settings: RunSettings) -> tuple[RunSettings, int]:
    """Return settings with what their data say of tags and epochs, and the tokens known."""
    tokenizer = _tokenizer(settings)
    if isinstance(tokenizer, Tokenizer):
        settings = fill_tag_ids(settings, tokenizer)
        augmentations(settings.data.augment, tokenizer, settings.seed)  # refuses what does not fit
    store = None
    if settings.train.counts_epochs:
        store = cached_store(settings.data, settings.tokenizer, cache_root())
    if store is not None:
        settings = fill_epochs(fill_tag_ids(settings, store.tokenizer), store)
    if isinstance(tokenizer, Tokenizer):
        return settings, tokenizer.vocab_size
    return settings, settings.model.vocab_size or tokenizer.vocab_size


def _tokenizer(settings: RunSettings) -> Tokenizer | BPE:
    """Return the run's tokenizer, or its settings where it would have to be trained first."""
    ready = ready_store(settings.data, settings.tokenizer)
    if ready is not None:
        return ready.tokenizer
    texts = all_texts(settings.data)  # refuses what is not there
    return (
        settings.tokenizer
        if isinstance(settings.tokenizer, BPE)
        else (settings.tokenizer.build(texts))
    )
