"""The layout of a run on many devices that takes least time and fits, and why no other.

Time is an estimate from published or measured figures: operations over the share of the devices'
products that such models reach, a pipeline's idle share, and what communication computation does
not hide. Layouts are tried in the order of their time until some fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from coterie.foundation.errors import SettingsError, UserError
from coterie.parallel import Parallel
from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.devices import DeviceFigures
from coterie.train.cluster.layout import AXES, Layout, layouts
from coterie.train.cluster.memory import DeviceMemory
from coterie.train.cluster.traffic import Flow, flows
from coterie.train.fitting import usable
from coterie.train.flops import recomputing, step_flops
from coterie.train.precision import Precision
from coterie.train.settings import RunSettings

MIXTURE_SHARE, DENSE_SHARE = 0.28, 0.50
"""Share of products of 8192³ that training steps reached on one H200, with and without experts
(docs/training.md, “Checking a GPU”)."""
_SELECTIVE = 0.1  # of what recomputing every block costs; without matrix products little is left
_SHOWN = 5


@dataclass(frozen=True)
class Estimate:
    """One layout's step.

    Attributes:
        layout: of the devices.
        words: `key=value` words of `coterie train`.
        compute: seconds of its operations on each device.
        idle: seconds that a pipeline's stages wait for each other.
        waiting: seconds of communication that computation does not hide.
        seconds: all of them.
        efficiency: share of the time in which a step's operations, none twice, are computed.
        mfu: those operations over what the devices' published rate allows in that time.
        flows: what each device sends.
        memory: bytes of the fullest device by part; none: not counted.
        reason: why it was not chosen.
    """

    layout: Layout
    words: tuple[str, ...]
    compute: float
    idle: float
    waiting: float
    seconds: float
    efficiency: float
    mfu: float
    flows: tuple[Flow, ...]
    memory: dict[str, int]
    reason: str = ""

    @property
    def memory_bytes(self) -> int:
        """All parts together."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class ClusterPlan:
    """What was found for a run on many devices.

    Attributes:
        device: figures of one; nodes: how many, with as many devices each; limit: bytes of one.
        tokens: of a step; flops: its operations; parameters: of the decoder.
        share: of the devices' products that steps are taken to reach.
        tried: how many layouts the sizes allow.
        chosen: the one that takes least time of those that fit; None: none does.
        others: faster ones that do not fit, and the next best.
        refused: why training does not take the chosen one; empty: it does.
    """

    device: DeviceFigures
    gpus: int
    nodes: int
    limit: int
    tokens: int
    flops: float
    parameters: int
    share: float
    tried: int
    chosen: Estimate | None
    others: tuple[Estimate, ...]
    refused: str = ""

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        found = asdict(self)
        for each in (found["chosen"], *found["others"]):
            if each is not None:
                each["memory_bytes"] = sum(each["memory"].values())
        if self.chosen is not None:
            found["tokens_per_second"] = self.tokens / self.chosen.seconds
        return found


def plan_cluster(
    settings: RunSettings,
    device: DeviceFigures,
    gpus: int,
    nodes: int,
    precision: Precision,
    limit: int,
) -> ClusterPlan:
    """Return the layout of a run on many devices.

    Args:
        settings: the run, its vocabulary's size known.
        device: figures of each.
        gpus: how many; nodes: over how many they are divided evenly.
        precision: the type of products, on a device whose kernels are counted.
        limit: bytes of one.

    Raises:
        UserError: devices or rows cannot be divided so.
    """
    if gpus < 1 or nodes < 1 or gpus % nodes:
        raise UserError(
            f"{gpus} devices cannot be divided over {nodes} nodes.",
            hint="Say --gpus as a multiple of --nodes: --gpus 64 --nodes 8",
        )
    search = _Search(Anatomy(settings), device, gpus // nodes, precision)
    found = sorted(
        map(search.estimate, layouts(search.anatomy, gpus, gpus // nodes)),
        key=lambda each: (each.seconds, sum(map(bool, each.flows)), each.layout.axes),
    )
    if not found:
        raise UserError(
            f"No layout divides this run over {gpus} devices: a step has "
            f"{settings.train.batch_size} rows, {settings.model.layers} layers and "
            f"{search.anatomy.shared_heads} heads to share.",
            hint=f"Raise the rows of a step, which changes the experiment: train.batch_size={gpus}",
        )
    chosen, others = search.fitting(found, usable(limit))
    return ClusterPlan(
        device, gpus, nodes, limit, settings.stages.budget, search.flops,
        sum(each.parameters for each in search.anatomy.groups.values()), search.share,
        len(found), chosen, tuple(others),
        "" if chosen is None else _refused(settings, chosen.layout),
    )  # fmt: skip


def _refused(settings: RunSettings, layout: Layout) -> str:
    """Return why training would not take a layout, in its own words; empty: it does."""
    sizes = dict(zip(AXES, layout.axes, strict=True))
    rows = {stage.context: stage.rows for stage in settings.stages.stages}
    try:
        Parallel(**sizes).require(layout.world, settings.model, rows, layout.pieces)
    except SettingsError as error:
        return error.message
    return ""


class _Search:
    def __init__(
        self, anatomy: Anatomy, device: DeviceFigures, per_node: int, precision: Precision
    ) -> None:
        self.anatomy, self.device, self.per_node = anatomy, device, per_node
        self.flops = step_flops(anatomy.settings)
        self.share = MIXTURE_SHARE if anatomy.mixtures else DENSE_SHARE
        self.memory = DeviceMemory(anatomy, precision)
        self._size = precision.dtype.itemsize
        again = recomputing(anatomy.settings)
        self._again = {False: 0.0, "selective": again * _SELECTIVE, True: again}

    def estimate(self, layout: Layout) -> Estimate:
        """Return a layout's time."""
        ideal = self.flops / layout.world / (self.device.flops * self.device.products * self.share)
        compute = ideal * (1 + self._again[layout.recompute])
        # Of m micro-batches through p stages, p − 1 of m + p − 1 turns are idle: Narayanan et al.
        # 2021, arXiv:2104.04473, section 2.2.
        idle = compute * (layout.pipeline - 1) / layout.pieces
        sent = tuple(
            replace(each, seconds=each.on(layout, self.device, self.per_node))
            for each in flows(self.anatomy, layout, self._size)
        )
        # What overlaps hides behind computation, but for its first unit, a layer's, which nothing
        # comes before or after.
        hidden = sum(each.seconds for each in sent if each.overlaps)
        waiting = max(
            hidden - compute, hidden * layout.pipeline / self.anatomy.settings.model.layers
        )
        waiting = min(waiting, hidden)
        waiting += sum(each.seconds for each in sent if not each.overlaps)
        seconds = compute + idle + waiting
        mfu = self.flops / (layout.world * self.device.flops * seconds)
        return Estimate(
            layout, layout.words, compute, idle, waiting, seconds, ideal / seconds, mfu, sent, {}
        )

    def fitting(
        self, found: Sequence[Estimate], room: int
    ) -> tuple[Estimate | None, list[Estimate]]:
        """Return the first that fits, and others: faster ones that do not, and the next that does.

        Of layouts that differ in micro-batches and recomputation alone, one is told.
        """
        chosen: Estimate | None = None
        lacking: dict[tuple[int, ...], Estimate] = {}
        for each in found:
            axes = each.layout.axes
            if chosen is not None and axes == chosen.layout.axes:
                continue
            counted = replace(each, memory=self._memory(each.layout, room))
            if counted.memory_bytes > room:
                if chosen is None and _least(lacking.get(axes), counted) is counted:
                    lacking[axes] = replace(counted, reason=_lack(counted.memory_bytes, room))
            elif chosen is not None:
                return chosen, [
                    *_fastest(lacking),
                    replace(counted, reason=_slower(counted, chosen)),
                ]
            else:
                chosen = counted
                lacking.pop(axes, None)
        if chosen is None:
            return None, sorted(lacking.values(), key=lambda each: each.memory_bytes)[:_SHOWN]
        return chosen, _fastest(lacking)

    def _memory(self, layout: Layout, room: int) -> dict[str, int]:
        """Return the memory by part; of weights and moments alone where those are too much."""
        state = self.memory.state(layout)
        return self.memory(layout) if state <= room else {"weights and moments alone": state}


def _least(one: Estimate | None, other: Estimate) -> Estimate:
    return other if one is None or other.memory_bytes < one.memory_bytes else one


def _fastest(lacking: dict[tuple[int, ...], Estimate]) -> list[Estimate]:
    return sorted(lacking.values(), key=lambda each: each.seconds)[:_SHOWN]


def _lack(needed: int, room: int) -> str:
    return f"{needed / 2**30:,.1f} GiB, {(needed - room) / 2**30:,.1f} too much"


def _slower(other: Estimate, chosen: Estimate) -> str:
    """Return how much longer a layout takes than the chosen, and with what."""
    longer = {
        "computing": other.compute - chosen.compute,
        "idle stages": other.idle - chosen.idle,
        "communication that nothing hides": other.waiting - chosen.waiting,
    }
    what = max(longer, key=longer.__getitem__)
    ratio = other.seconds / chosen.seconds
    if ratio < 1.001:
        return f"as fast, but {(other.memory_bytes / chosen.memory_bytes):.2f} times the memory"
    return f"{ratio:.3f} times the time: {1e3 * longer[what]:+,.1f} ms {what}"
