"""One text, written by several processes one after the other: each goes on where the last one was.

It is what one uninterrupted process would have written, bit for bit: the cache is saved as it is,
and every token draws its own number from the random stream.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.generate.engine import Engine
from coterie.generate.request import Piece, Request
from coterie.generate.sampling import SamplingSettings
from coterie.generate.saved import SavedText, weights_digest
from coterie.generate.text import Text


class ResumableText:
    """A text on its way.

    Args:
        saved: the state it was left in; None: a new text.

    Raises:
        UserError: the cache is none that can be saved.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: SamplingSettings,
        prompt: list[int],
        saved: SavedText | None = None,
    ) -> None:
        self._engine, self._sampling = engine, sampling
        self._session = engine.new_session(sampling)
        self._session.check_kept()
        request = Request(prompt, sampling)
        self._text = Text(request, prompt, engine.tokenizer)
        self._unread = list(prompt)
        self.model = weights_digest(engine.decoder) if saved is None else saved.model
        if saved is not None:
            self._text.replay(saved.written)
            self._session.resume(saved.stretch, saved.tensors)
            self._unread = saved.written[-1:]

    @classmethod
    def load(cls, engine: Engine, path: Path, layers: Sequence[Layer] = ()) -> "ResumableText":
        """Return the text of a file.

        Args:
            engine: of the model that began it.
            layers: settings laid over those it was begun with.

        Raises:
            UserError: it cannot be read, or belongs to another model; the cache or the seed is to
                change.
            SettingsError: a setting does not exist or does not fit.
        """
        saved = SavedText.load(path, weights_digest(engine.decoder))
        given = saved.sampling
        own = Layer("the session", given.model_dump(mode="json"))
        sampling = load_settings(SamplingSettings, [own, *layers]).settings
        if (sampling.cache, sampling.seed) != (given.cache, given.seed):
            raise UserError(
                f"The session {path} keeps the cache and the seed that it was begun with.",
                hint="Leave cache=… and seed=… out, or begin a new file.",
            )
        return cls(engine, sampling, saved.prompt, saved)

    @property
    def tokens(self) -> list[int]:
        """All tokens so far, the prompt's included."""
        return list(self._text.past)

    def stream(self) -> Iterator[Piece]:
        """Yield further pieces, until the settings end the text."""
        while not self._text.finished:
            *before, latest = self._session.pieces(self._unread)
            for piece in before:
                self._session.read([piece])
            found = self._text.advance(self._session.read([latest])[0])
            if found.error is not None:
                raise found.error
            self._unread = [found.token]
            yield found

    def save(self, path: Path) -> None:
        """Write the state to a file; the one that stands there is replaced when it is whole.

        Raises:
            UserError: the disk is full, or the cache is none that can be saved.
        """
        stretch, tensors = self._session.kept()
        written = self._text.past[len(self._text.prompt) :]
        with torch.inference_mode():
            SavedText(
                self.model, self._sampling, self._text.prompt, written, stretch, tensors
            ).save(path)
