"""A run on several processes: what it asks for, what each moves, and that all agree."""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import coterie
from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import leaves
from coterie.model import Decoder
from coterie.parallel import Parallel
from coterie.parallel.lines import noted
from coterie.parallel.mesh import build_mesh
from coterie.parallel.ranks import ALONE, Ranks
from coterie.parallel.shard import local
from coterie.parallel.together import Together
from coterie.parallel.zero import Zero
from coterie.train.method import Method, RunData, Tell, Trainable
from coterie.train.monitor.parts import PartWatch
from coterie.train.optimizer import OptimizerSettings, RoleParameter
from coterie.train.optimizer.shared import SharedOptimizer
from coterie.train.pretraining import Pretraining
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings

_PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "tokenizers")


def prepared(
    settings: RunSettings, method: Method, tell: Tell, ranks: Ranks
) -> tuple[RunSettings, RunData]:
    """Return what a run's method prepares; the first process does it, the others find its files.

    Raises:
        UserError: settings or data cannot be used.
        RunError: processes do not agree on them.
    """
    if ranks is ALONE:
        return method.prepare(settings, tell)
    given = for_several(settings, method)
    settings, data = ranks.first_then(lambda: method.prepare(given, tell))
    agree(ranks, settings, data)
    return settings, data


def for_several(settings: RunSettings, method: Method) -> RunSettings:
    """Return the settings as several processes can have them: nothing is measured on the way.

    Raises:
        SettingsError: the run asks for what only one process can do; every such key is told.
    """
    train = settings.train
    refused = {
        "train.compile": train.compile is True,
        "train.offload": train.offload.anything,
        "align": not isinstance(method, Pretraining),
    }
    if found := [key for key, asked in refused.items() if asked]:
        raise SettingsError(
            f"{' and '.join(found)}: several processes cannot do that yet.",
            hint="Leave it out, or train in one process (no --devices).",
        )
    precision = (
        "float32" if train.precision == "auto" and train.device == "cpu" else train.precision
    )
    update = {"compile": False, "cuda_graph": False, "precision": precision}
    return settings.model_copy(update={"train": train.model_copy(update=update)})


def agree(ranks: Ranks, settings: RunSettings, data: RunData) -> None:
    """Make sure that all processes train the same: settings, text, packages.

    Raises:
        RunError: they do not; both values are told.
    """
    of_settings = {
        ".".join(key): str(value) for key, value in leaves(settings.model_dump(mode="json"))
    }
    facts = {"data": data.fingerprint, "coterie": coterie.__version__}
    facts |= {name: version(name) for name in _PACKAGES}
    ranks.agree(of_settings | facts)


def divide(
    settings: RunSettings, decoder: Decoder, ranks: Ranks, device: torch.device
) -> Together | None:
    """Divide a decoder that has the weights of step 0 among processes; None: there is one.

    Raises:
        SettingsError: it cannot be divided so.
    """
    parallel = settings.parallel or Parallel()
    rows = {stage.context: stage.rows for stage in settings.stages.stages}
    sizes = parallel.require(
        ranks.world, settings.model, rows, settings.train.gradient_accumulation
    )
    kind = Together if parallel.deepspeed is None else Zero
    if ranks is ALONE:
        if kind is Zero:
            raise SettingsError(
                "parallel.deepspeed: DeepSpeed divides a run among processes, and none were "
                "started.",
                hint="coterie train … --deepspeed FILE [--devices N], or parallel.deepspeed=null",
            )
        return None
    with noted():
        return kind(ranks, build_mesh(sizes, device, parallel.expert), parallel, decoder)


class DividedTrainable(Trainable):
    """The parts of parameters that this process holds, in the decoder's own memory.

    Attributes:
        whole: the decoder's parameters themselves, in the order of `parameters`.
    """

    recordable = False

    def __init__(self, decoder: Decoder) -> None:
        # What is not divided belongs to heads that no step asks for anything.
        self.whole = [p for p in role_parameters(decoder) if isinstance(p.tensor, DTensor)]
        self.parameters = [
            each._replace(tensor=nn.Parameter(local(each.tensor))) for each in self.whole
        ]

    def pairs(self) -> list[tuple[RoleParameter, RoleParameter]]:
        """Return each parameter and the part of it that is here."""
        return list(zip(self.whole, self.parameters, strict=True))

    def optimizer(self, settings: OptimizerSettings, ranks: Ranks) -> SharedOptimizer:
        """Return what moves the parts, and as wholes what must be."""
        owned = frozenset(p.name for p in self.whole if settings.moves_whole(p))
        return SharedOptimizer(settings.build, self.pairs(), owned, ranks)

    def take_gradients(self) -> None:
        """Give each part its gradient, and the decoder's parameter none."""
        for whole, part in self.pairs():
            gradient = whole.tensor.grad
            part.tensor.grad = None if gradient is None else local(gradient)
            whole.tensor.grad = None

    def watch(self, together: Together | None) -> PartWatch:
        """Return what measures parts of gradients and updates, over all processes."""
        assert together is not None
        here = {
            each.name: (each.role, each.tensor.numel(), together.copies(each.tensor))
            for each in self.whole
        }
        every = {n: told for stage in together.ranks.gather(here) for n, told in stage.items()}
        parts = {each.name: each for each in self.parameters}
        nothing = nn.Parameter(torch.empty(0, device=self.parameters[0].tensor.device))
        watched = [  # in one order everywhere, what other stages alone hold included
            parts.get(name) or RoleParameter(name, role, nothing, 0)
            for name, (role, _, _) in every.items()
        ]
        held = {name: (size, here[name][2] if name in here else 1)
                for name, (_, size, _) in every.items()}  # fmt: skip
        return PartWatch(watched, together.norms, held)

    def norms(self) -> list[tuple[Tensor, Tensor]]:
        """Return the norm of each part's gradient, and the parameter that it is of."""
        held = [pair for pair in self.pairs() if pair[1].tensor.grad is not None]
        gradients = [part.tensor.grad for _, part in held]
        found = torch._foreach_norm(gradients)  # type: ignore[arg-type]  # pyright: ignore
        return [(norm, whole.tensor) for norm, (whole, _) in zip(found, held, strict=True)]

    def forget(self) -> None:
        """Drop the gradients that were not taken."""
        for whole in self.whole:
            whole.tensor.grad = None
