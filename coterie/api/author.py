"""A model as the browser's author: it writes what the page asks for, and scores what stands."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from coterie.api.given import layer_of
from coterie.api.model import Model, load
from coterie.checkpoint.layout import list_checkpoints, step_of
from coterie.evaluate.specialisation import selections
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer
from coterie.generate.modes import evaluation
from coterie.generate.watched import WatchedText
from coterie.model import Decoder
from coterie.model.observe import Steering, steered
from coterie.visualise.web.studio import Ask, Experts, Start

_KEPT = 3  # models of other steps in memory


class ModelAuthor:
    """A model, and its run's other checkpoints when they are asked for.

    Args:
        layers: of sampling settings, which what the page says is laid over.
    """

    def __init__(self, model: Model, layers: Sequence[Layer] = ()) -> None:
        self._model, self._layers = model, tuple(layers)
        self._others: dict[int, Model] = {}
        self._loading = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of the model, and how it writes unless asked otherwise."""
        sampling = self._model.sampling(*self._layers)
        return {
            "name": self._model.name, "step": self._model.step, "steps": self._steps(),
            "drawing": {name: getattr(sampling, name) for name in
                        ("temperature", "top_k", "top_p", "max_tokens", "seed")},
        }  # fmt: skip

    def write(self, start: Start, ask: Ask, masked: Experts, forced: Experts) -> WatchedText:
        """Return a text to be written."""
        model = self._at(ask.step)
        said = layer_of(ask.drawing.model_dump(exclude_none=True))
        sampling = model.sampling(*self._layers, said)
        return model.watch_with(
            start.prompt, sampling, masked, forced, written=start.written,
            steered_from=start.steered_from,
        )  # fmt: skip

    def surprises(
        self, tokens: Sequence[int], step: int, masked: Experts, forced: Experts
    ) -> np.ndarray:
        """Return what `surprises_of` does, by the checkpoint of a step."""
        return surprises_of(self._at(step).decoder, tokens, masked, forced)

    def selections(self, tokens: Sequence[int], step: int) -> dict[int, np.ndarray]:
        """Return the experts of each token but the last, [N − 1, k], by layer."""
        return selections(self._at(step).decoder, {"": [tokens]})

    def _steps(self) -> list[int]:
        inside = self._model.path.absolute().parent
        if inside.name != "checkpoints":
            return [self._model.step]
        return sorted(step_of(path) for path in list_checkpoints(inside))

    def _at(self, step: int | None) -> Model:
        if step is None or step == self._model.step:
            return self._model
        if step not in self._steps():
            known = ", ".join(f"{each:,}" for each in self._steps())
            raise UserError(f"There is no checkpoint of step {step:,}; there are: {known}.")
        with self._loading:
            return self._other(step)

    def _other(self, step: int) -> Model:
        if step not in self._others:
            while len(self._others) >= _KEPT:
                del self._others[next(iter(self._others))]
            device = str(next(self._model.decoder.parameters()).device)
            folder = self._model.path.absolute().parents[1]
            self._others[step] = load(folder, step=step, device=device)
        return self._others[step]


def surprises_of(
    decoder: Decoder, tokens: Sequence[int], masked: Experts, forced: Experts
) -> np.ndarray:
    """Return −log p of each token but the first, in nats, read in windows of the model's context.

    Args:
        masked, forced: experts of each layer that no token, or every token, goes to.
    """
    device, context = next(decoder.parameters()).device, decoder.settings.context
    found = []
    with steered(decoder, Steering(masked, forced)), evaluation(decoder):
        for start in range(0, len(tokens) - 1, context):
            piece = torch.tensor([tokens[start : start + context + 1]], device=device)
            losses = decoder(piece[:, :-1], piece[:, 1:]).losses
            assert losses is not None
            found.append(losses[0].double().cpu().numpy())
    return np.concatenate([np.empty(0), *found])
