"""Text from tokens that arrive one at a time: only whole characters are handed out."""

from __future__ import annotations

import codecs

from coterie.tokenizer.interface import Tokenizer


class StreamDecoder:
    """Turns tokens into text as they come; what `push` and `finish` return adds up to the whole.

    A token may end in the middle of a character; its bytes wait for the rest. The pieces joined
    equal `tokenizer.decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        # For decoders that look at neighbours: tokens whose text is already out, and those whose
        # text still waits.
        self._context: list[int] = []
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that one further token completes; possibly none.

        Raises:
            TokenizerError: the number lies outside the vocabulary.
        """
        if self._tokenizer.joins_bytes:
            return self._bytes.decode(self._tokenizer.token_bytes(token))
        self._tokenizer.check_token(token)
        self._waiting.append(token)
        fresh = self._fresh_text()
        if not fresh or fresh.endswith("\ufffd"):
            return ""  # perhaps the beginning of a character
        self._context, self._waiting = self._waiting, []
        return fresh

    def finish(self) -> str:
        """Return what is left; bytes that never became a character are U+FFFD."""
        if self._tokenizer.joins_bytes:
            return self._bytes.decode(b"", final=True)
        fresh = self._fresh_text()
        self._context, self._waiting = self._waiting or self._context, []
        return fresh

    def _fresh_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._waiting)[len(before) :]
