"""Memory of one device of a layout, by part: the count of a step, divided as the layout divides.

Alone on one device it is that count. Weights, gradients and moments follow from the groups of
parameters; activations are counted on the device's own rows and length of text, and divided by its
share of layers (times the micro-batches that its pipeline stage holds at once: Narayanan et al.
2021, arXiv:2104.04473, section 2.2) and of channels (sequence parallel: Korthikanti et al. 2022,
arXiv:2205.05198). What FSDP gathers for the moment is added: two units of weights (the one computed
and the next) and one unit's gradients (Zhao et al. 2023, arXiv:2304.11277, section 3.3).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.layout import Layout
from coterie.train.live_memory import Bytes
from coterie.train.precision import Precision
from coterie.train.step_memory import largest, step_phases

_ENDS = {"embedding", "head and loss", "objective", "clipping", "rest", "going back", "batches"}
_STATE = {"weights", "gradients", "optimizer", "average"}
_FLOAT = 4
_TOKENS = 1 << 14  # most that are counted at once; of more, the rest is added in proportion


class DeviceMemory:
    """Counts the memory of one device, for any layout of a run.

    Args:
        anatomy: of the run.
        precision: the type of its products, on a device whose kernels are counted.
    """

    def __init__(self, anatomy: Anatomy, precision: Precision) -> None:
        self.anatomy, self.precision = anatomy, precision
        self._phases = functools.cache(self._counted)

    def __call__(self, layout: Layout) -> Bytes:
        """Return the bytes by part when most are held, on the device that holds most."""
        settings = self.anatomy.settings
        rows = settings.train.batch_size // layout.replicas
        context = settings.model.context // layout.context
        at_once = rows // layout.pieces
        counted = at_once if layout.world == 1 else min(at_once, max(1, _TOKENS // context))
        counts = self._phases(counted, min(layout.pieces, 2), layout.recompute, context)
        phases = {
            name: {
                part: size if part in _STATE else round(size * at_once / counted)
                for part, size in {**phase, "batches": 0}.items()
            }
            for name, phase in counts.items()
        }
        for phase in phases.values():
            phase["batches"] = 2 * 8 * rows * context  # tokens and targets
        stages = [self._stage(layout, phases, held) for held in self._stages(layout)]
        return max(stages, key=lambda each: sum(each.values()))

    def state(self, layout: Layout) -> int:
        """Return the bytes of weights and moments, which any count is more than."""
        groups = self.anatomy.groups
        return max(
            round(sum((_FLOAT * groups[g].parameters + groups[g].state) * share
                      for g, share in held.items()))
            for held, _ in self._stages(layout)
        )  # fmt: skip

    def _counted(
        self, rows: int, pieces: int, recompute: object, context: int
    ) -> Mapping[str, Bytes]:
        settings = self.anatomy.settings
        train = settings.train.model_copy(
            update={
                "batch_size": rows * pieces,
                "gradient_accumulation": pieces,
                "activation_checkpointing": recompute,
            }
        )
        model = settings.model.model_copy(update={"context": context})
        return step_phases(
            settings.model_copy(update={"train": train, "model": model}), self.precision
        )

    def _stages(self, layout: Layout) -> Iterator[tuple[dict[str, float], float]]:
        """Yield the first and the last stage: shares held of groups and of layers' activations."""
        blocks = 1 / (layout.tensor * layout.pipeline)
        ends = 1 / (layout.tensor * layout.sharers)
        held = {
            "dense": blocks / layout.sharers,
            "experts": blocks / (layout.expert * layout.expert_sharers),
        }
        if layout.pipeline == 1:
            yield {**held, "embedding": ends, "head": ends}, 1.0
            return
        in_flight = min(layout.pieces, layout.pipeline)
        yield {**held, "embedding": ends, "head": 0.0}, in_flight / layout.pipeline
        tied = ends if self.anatomy.settings.model.head.tied else 0.0
        yield {**held, "embedding": tied, "head": ends}, 1 / layout.pipeline

    def _stage(
        self, layout: Layout, phases: Mapping[str, Bytes], stage: tuple[dict[str, float], float]
    ) -> Bytes:
        held, layers = stage
        groups = self.anatomy.groups
        whole = sum(each.parameters for each in groups.values())
        share = sum(groups[g].parameters * part for g, part in held.items()) / whole
        state = sum(each.state for each in groups.values()) or 1
        moments = sum(groups[g].state * part for g, part in held.items()) / state

        def local(part: str, size: int) -> int:
            if part == "weights":  # and the buffers, which everybody has
                return round(size - _FLOAT * whole * (1 - share))
            if part in ("gradients", "average"):
                return round(size * share)
            if part == "optimizer":
                return round(size * moments)
            if part == "batches":
                return size
            return round(size / layout.tensor * (1 if part in _ENDS else layers))

        found = largest(
            {name: {part: local(part, size) for part, size in phase.items()}
             for name, phase in phases.items()}
        )  # fmt: skip
        settings = self.anatomy.settings
        if settings.model.ngram is not None:
            found["weights"] += settings.model.ngram.bytes
        if layout.sharers > 1:
            found["gathered"] = self._gathered(layout)
        if settings.train.save_in_background and self.precision.device.type == "cpu":
            kept = ("weights", "optimizer", "average")
            found["saving"] = sum(found.get(each, 0) for each in kept)
        return dict(sorted(found.items(), key=lambda each: -each[1]))

    def _gathered(self, layout: Layout) -> int:
        """Return the bytes of weights and gradients that FSDP holds whole for the moment."""
        groups = self.anatomy.groups
        unit = max(groups["dense"].block, groups["experts"].block * (layout.expert == 1))
        ends = groups["embedding"].parameters + groups["head"].parameters
        return round((3 * unit + ends) * _FLOAT / layout.tensor)
