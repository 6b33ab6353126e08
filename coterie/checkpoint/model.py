"""A trained model from whatever names it: a run, `latest`, or the path of a run or checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.checkpoint.check import model_settings, read_settings, read_tokenizer, require_sound
from coterie.checkpoint.hashing import require_unchanged
from coterie.checkpoint.layout import MODEL, is_checkpoint, stored
from coterie.checkpoint.manifest import read_manifest
from coterie.checkpoint.read import OnDamaged, find_checkpoint
from coterie.checkpoint.tensor_file import files_at, read_tensors
from coterie.checkpoint.tensors import adopt_tensors
from coterie.foundation.errors import TokenizerError
from coterie.foundation.runs import RunDirectory, find_run
from coterie.model import Decoder
from coterie.quantise import WeightSettings, quantise, weights_of
from coterie.tokenizer.interface import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A decoder in evaluation mode on the CPU, and what belongs to it.

    Its weights are the checkpoint's own file, mapped into memory: a page is read when it is first
    used, and copied when it is first written to.

    Attributes:
        decoder: the model.
        own_tokenizer: the one it was trained with; None: it came without one.
        settings: the resolved settings of its run, as plain values.
        step: optimizer steps it was trained for.
        path: the checkpoint it came from.
    """

    decoder: Decoder
    own_tokenizer: Tokenizer | None
    settings: dict[str, Any]
    step: int
    path: Path

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with.

        Raises:
            TokenizerError: the model came without one.
        """
        if self.own_tokenizer is None:
            raise TokenizerError(
                f"The model of {self.path} came without a tokenizer, so it can neither read nor "
                "write text; it can be shown, extended and exported.",
                hint="Import it again from a place that holds its tokenizer as well.",
            )
        return self.own_tokenizer

    def require_unchanged(self) -> None:
        """Refuse to go on with weights whose file was written to, or cut short, since.

        Raises:
            CheckpointError: it was.
        """
        require_unchanged(self.path / MODEL, mapped=True)


def locate_checkpoint(
    target: str | Path | RunDirectory, step: int | None = None, on_damaged: OnDamaged | None = None
) -> Path:
    """Return the checkpoint that a target means, sound but for the optimizer's unread file.

    Args:
        target: a run, its name, `latest`, or the path of a run or of a checkpoint.
        step: one of the run's checkpoints; the newest sound one if None.
        on_damaged: told of each damaged checkpoint that was passed over.

    Raises:
        RunError: there is no such run.
        CheckpointError: there is no (sound) checkpoint.
    """
    if isinstance(target, RunDirectory):
        return find_checkpoint(target, step, on_damaged, moments=False)
    path = Path(target)
    if is_checkpoint(path):
        require_sound(path, moments=False)
        return path
    return find_checkpoint(find_run(target), step, on_damaged, moments=False)


def load_model(
    target: str | Path | RunDirectory,
    step: int | None = None,
    on_damaged: OnDamaged | None = None,
    weights: WeightSettings | None = None,
) -> LoadedModel:
    """Load a trained model; see `locate_checkpoint` for the other arguments.

    Args:
        weights: quantise the weights so, unless they are stored in that format.

    Raises:
        RunError: there is no such run.
        CheckpointError: there is no sound checkpoint, or this version cannot build its model.
        UserError: the weights are stored in another format of few bits.
    """
    path = locate_checkpoint(target, step, on_damaged)
    settings = read_settings(path)
    decoder = Decoder(model_settings(settings))  # nothing is drawn: all comes from the file
    adopt_tensors(decoder, read_tensors(stored(path, MODEL)), path)
    for file in files_at(stored(path, MODEL)):
        require_unchanged(file)
    if weights is not None and weights_of(decoder) != getattr(weights, "kind", None):
        quantise(decoder, weights)
    return LoadedModel(
        decoder=decoder.eval(),
        own_tokenizer=read_tokenizer(path),
        settings=settings,
        step=read_manifest(path).step,
        path=path,
    )
