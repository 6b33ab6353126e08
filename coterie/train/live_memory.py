"""Which bytes are alive at each moment of a step, by the part of the model that made them.

Every operator is watched below autograd, so what autograd keeps for the backward pass is counted by
being there. What one operator holds inside itself is not seen. It works on tensors with memory and
on those without (`train/sketch.py`), and costs a few times a small step's time: it is for estimates
and reports alone, and nothing of it is there while it does not watch.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from coterie.train.parts import marked, marks
from coterie.train.sketch import storage_of, tensors_in
from coterie.train.step import Stepper

Bytes = dict[str, int]
FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"
_BEGIN = {"embedding": FORWARD, "optimizer": UPDATE}
_GOING_BACK = "going back"  # what a step makes outside of all parts: gradients on their way


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of living tensors while it is entered.

    Args:
        device: the type of device whose tensors count; None: all.

    Attributes:
        live: bytes that are alive now, by part.
        allocated: bytes that were ever counted, by part.
        peaks: by phase of a step, what was alive when most was.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self._device = device
        self.live: defaultdict[str, int] = defaultdict(int)
        self.allocated: defaultdict[str, int] = defaultdict(int)
        self.peaks: dict[str, Bytes] = {}
        self._phase, self._parts, self._total = FORWARD, ["rest"], 0
        self._known: dict[int, tuple[Any, str, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # would import the compiler, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call an operator and count what it returns."""
        out = func(*args, **(kwargs or {}))
        for each in tensors_in((out,)):
            self.hold(each, self._parts[-1])
        return out

    def hold(self, tensor: Tensor, part: str, *, again: bool = False) -> None:
        """Count a tensor's memory, once, until it is freed.

        Args:
            again: whether memory that is counted already now belongs to this part.
        """
        if self._device is not None and tensor.device.type != self._device:
            return
        if flatten := getattr(tensor, "__tensor_flatten__", None):  # has no memory of its own
            for name in flatten()[0]:
                self.hold(getattr(tensor, name), part, again=again)
            return
        storage = storage_of(tensor)
        key: int = storage._cdata
        if key in self._known:
            reference, before, size = self._known[key]
            if again and before != part:
                self.live[before] -= size
                self.live[part] += size
                self.allocated[before] -= size
                self.allocated[part] += size
                self._known[key] = reference, part, size
            return
        size = storage.nbytes()
        reference = weakref.ref(storage, lambda _: self._freed(key))
        self._known[key] = reference, part, size
        self.live[part] += size
        self.allocated[part] += size
        self._total += size
        if self._total > sum(self.peaks.get(self._phase, {}).values()):
            self.peaks[self._phase] = {name: held for name, held in self.live.items() if held}

    def hold_all(self, tensors: Iterable[Tensor], part: str) -> None:
        """Count tensors that are there already."""
        for each in tensors:
            self.hold(each, part)

    def _freed(self, key: int) -> None:
        _, part, size = self._known.pop(key)
        self.live[part] -= size
        self._total -= size

    @property
    def peak(self) -> Bytes:
        """What was alive when most was."""
        return max(self.peaks.values(), key=lambda each: sum(each.values()), default={})

    @contextlib.contextmanager
    def watching(
        self, stepper: Stepper, *, compiled: bool = False, phases: Mapping[int, str] | None = None
    ) -> Iterator[LiveMemory]:
        """Count what steps hold, weights and all, inside the block.

        Args:
            phases: what begins when the gradient comes to the output of a block, by its number;
                None: the backward pass at the last one.
        """
        decoder = stepper.decoder
        self.hold_all((*decoder.parameters(), *decoder.buffers()), "weights")
        if stepper.average is not None:
            self.hold_all(stepper.average.tensors(), "average")
        with contextlib.ExitStack() as stack:
            for subject, method, part in marks(stepper, compiled=compiled):
                stack.enter_context(marked(subject, method, part, self._enter))
            for parameter in decoder.parameters():
                if parameter.requires_grad:
                    hook = parameter.register_post_accumulate_grad_hook(self._gradient)
                    stack.callback(hook.remove)
            last = len(decoder.blocks) - 1
            for number, phase in (phases or {last: BACKWARD}).items():
                meet = functools.partial(self._meet, phase)
                stack.callback(decoder.blocks[number].register_forward_hook(meet).remove)
            yield stack.enter_context(self)

    @contextlib.contextmanager
    def _enter(self, part: str) -> Iterator[None]:
        """Count for a part; embedding begins a pass, the optimizer the update."""
        self._phase = _BEGIN.get(part, self._phase)
        self._parts.append(_GOING_BACK if part == "objective" else part)
        try:
            yield
        finally:
            self._parts.pop()

    def _gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.hold(parameter.grad, "gradients", again=True)

    def _meet(self, phase: str, module: Any, inputs: Any, output: Any) -> None:
        """Have a phase begin when the gradient comes to a block's output."""
        stream = output[0]
        if stream.requires_grad:
            stream.register_hook(lambda gradient: setattr(self, "_phase", phase))
