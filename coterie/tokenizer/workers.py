"""Texts to token numbers in processes of their own, which know nothing but a tokenizer.

Such a process is a fresh interpreter that reads texts from its standard input and writes numbers to
its standard output. So it needs neither a fork, which threads forbid, nor the caller's main module,
which may lack a guard; and it ends with its caller, however that ends.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Self

import numpy as np

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import tokenizer_from_json


class Counted(NamedTuple):
    """A text as tokens, uint32 [T], with its bytes in UTF-8 and how many tokens are unknown.

    With a `problem` the text cannot be encoded.
    """

    tokens: np.ndarray
    bytes: int
    unknown: int
    problem: str = ""


def count_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[Counted]:
    """Encode texts, all at once if all can be encoded."""
    try:
        arrays = tokenizer.encode_arrays(texts)
    except TokenizerError as error:
        if len(texts) > 1:
            return [found for text in texts for found in count_tokens([text], tokenizer)]
        return [_counted(np.empty(0, dtype=np.uint32), texts[0], tokenizer, error)]
    return [_counted(array, text, tokenizer) for array, text in zip(arrays, texts, strict=True)]


def _counted(
    tokens: np.ndarray, text: str, tokenizer: Tokenizer, error: TokenizerError | None = None
) -> Counted:
    unknown = tokenizer.unknown_token
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    found = 0 if unknown is None else int(np.count_nonzero(tokens == unknown))
    return Counted(tokens, size, found, error.message.rstrip(".") if error else "")


class TokenizerProcess:
    """A process that encodes texts; one caller at a time may use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is its caller's alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        with self._ending():
            pickle.dump(tokenizer.to_json(), self._to)
            self._to.flush()

    def encode(self, texts: Sequence[str]) -> list[Counted]:
        """Return the tokens of each text.

        Raises:
            TokenizerError: the process ended.
        """
        with self._ending():
            pickle.dump(texts, self._to, protocol=5)
            self._to.flush()
            found = pickle.load(self._from)
            if isinstance(found, str):
                raise TokenizerError(f"A process that tokenizes failed: {found}")
            return found

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Say in words that the process has ended, where it has."""
        try:
            yield
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise TokenizerError(
                f"A process that tokenizes has ended (status {self._process.poll()}).",
                hint="If the system ended it for want of memory, use fewer: --processes 1.",
            ) from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._to.close()
        self._from.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> None:
    """Encode what comes on standard input until it ends."""
    given, taken = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between
    with contextlib.suppress(EOFError, BrokenPipeError):
        tokenizer = tokenizer_from_json(pickle.load(given))
        while True:
            _answer(pickle.load(given), tokenizer, taken)


def _answer(texts: list[str], tokenizer: Tokenizer, taken: IO[bytes]) -> None:
    try:
        answer: object = count_tokens(texts, tokenizer)
    except Exception as error:  # whatever it is, the caller shall hear of it
        answer = repr(error)
    pickle.dump(answer, taken, protocol=5)
    taken.flush()
