"""What one device sends in a step, by kind, each by the formula of its collective.

A ring over n devices sends (n − 1)/n of a tensor to gather or to scatter it, twice that to reduce
it for all (Thakur et al. 2005, “Optimization of collective communication operations in MPICH”;
Patarasu & Yuan 2009, “Bandwidth optimal all-reduce algorithms for clusters of workstations”).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.devices import DeviceFigures
from coterie.train.cluster.layout import Layout

_FLOAT = 4


@dataclass(frozen=True)
class Flow:
    """One kind of communication of a step.

    Attributes:
        kind: what is sent.
        axis: of the mesh; its group exchanges it.
        bytes: that one device sends in a step.
        messages: that follow each other.
        overlaps: whether computation goes on meanwhile.
        formula: and its source.
        seconds: that the bytes take.
    """

    kind: str
    axis: str
    bytes: float
    messages: int
    overlaps: bool
    formula: str
    seconds: float = 0.0

    def on(self, layout: Layout, device: DeviceFigures, per_node: int) -> float:
        """Return the seconds that it takes over the slowest link of its group."""
        far = layout.span(self.axis) > per_node
        rate = device.outside if far else device.inside
        return self.bytes / rate + self.messages * device.latency[far]


def flows(anatomy: Anatomy, layout: Layout, size: int) -> Iterator[Flow]:
    """Yield all kinds that a layout has.

    Args:
        anatomy: of the run.
        layout: the devices.
        size: bytes of a value that products read.
    """
    model, groups, pieces = anatomy.settings.model, anatomy.groups, layout.pieces
    rows = anatomy.settings.train.batch_size // layout.replicas
    tokens = rows * model.context / layout.context  # of a step, on one device
    stream = tokens * model.width * size
    layers = model.layers / layout.pipeline
    cut = layout.tensor * layout.pipeline
    ends = groups["embedding"].parameters + groups["head"].parameters
    dense = groups["dense"].parameters / cut + ends / layout.tensor
    experts = groups["experts"].parameters / cut / layout.expert
    passes = (
        6 if layout.recompute is True else 4
    )  # dispatch and combine, both ways, perhaps forward again
    yield from _of_weights(layout, dense, experts, round(layers))
    if layout.expert > 1:
        chosen = sum(each.experts_per_token for each in anatomy.mixtures) / layout.pipeline
        yield Flow(
            "expert dispatch and combine", "expert",
            passes * chosen * stream * _rest(layout.expert),
            round(passes * pieces * len(anatomy.mixtures) / layout.pipeline), False,
            "passes · layers · k · tokens · width · (n−1)/n, passes = 4 (6 recomputed): Lepikhin "
            "et al. 2020, arXiv:2006.16668",
        )  # fmt: skip
    if layout.tensor > 1:
        yield Flow(
            "tensor gather and scatter", "tensor",
            2 * passes * layers * stream * _rest(layout.tensor),
            round(2 * passes * layers * pieces), False,
            "2 · passes · layers · tokens · width · (n−1)/n: Korthikanti et al. 2022, "
            "arXiv:2205.05198, section 4.2.2",
        )  # fmt: skip
    if layout.pipeline > 1:
        yield Flow(
            "pipeline sends", "pipeline", 2 * stream / layout.tensor, 2 * pieces, False,
            "2 · tokens · width: Narayanan et al. 2021, arXiv:2104.04473, section 3.2",
        )  # fmt: skip
    if layout.context > 1:
        passed = 3 * (layout.context - 1) * anatomy.key_values * tokens * size * layers
        yield Flow(
            "keys and values round the ring", "context", passed / layout.tensor,
            round(3 * (layout.context - 1) * layers * pieces), True,
            "3 · (n−1) · layers · tokens · (keys + values): Liu et al. 2023, arXiv:2310.01889",
        )  # fmt: skip


def _rest(devices: int) -> float:
    return (devices - 1) / devices


def _of_weights(layout: Layout, dense: float, experts: float, units: int) -> Iterator[Flow]:
    """Yield gathers of weights and sums of gradients, of one device's own share of matrices.

    Both travel in float32, as `parallel.gather` has it unless said otherwise.
    """
    together = dense + (experts if layout.expert == 1 else 0.0)
    yield from _shared(layout, "", together, units, layout.sharers, layout.data)
    if layout.expert > 1:
        sharers = layout.expert_sharers
        copies = layout.replicas * layout.context // layout.expert // sharers
        yield from _shared(layout, "expert ", experts, units, sharers, copies)


def _shared(
    layout: Layout, whose: str, weights: float, units: int, sharers: int, copies: int
) -> Iterator[Flow]:
    """Yield what devices send that share weights, of which there are so many copies."""
    pieces, size = layout.pieces, weights * _FLOAT
    if sharers > 1:
        yield Flow(
            f"{whose}weights gathered", "shard", 2 * pieces * size * _rest(sharers),
            2 * pieces * units, True,
            "2 · micro-batches · weights · (n−1)/n: Rajbhandari et al. 2020, arXiv:1910.02054, "
            "section 7",
        )  # fmt: skip
        yield Flow(
            f"{whose}gradients scattered", "shard", pieces * size * _rest(sharers),
            pieces * units, True,
            "micro-batches · gradients · (n−1)/n: Rajbhandari et al. 2020, section 7",
        )  # fmt: skip
    if copies > 1:
        axis = "data" if layout.data > 1 else "shard"
        yield Flow(
            f"{whose}gradients reduced", axis, 2 * size / sharers * _rest(copies), units, True,
            "2 · gradients held · (n−1)/n: Patarasu & Yuan 2009",
        )  # fmt: skip
