"""Text from tokens that arrive one at a time: only whole characters are returned."""

from collections.abc import Iterable, Sequence

from coterie.tokenizer.interface import Tokenizer


class StreamDecoder:
    """Turns tokens into text as they come; what `push` and `finish` return adds up to the whole.

    A token may end in the middle of a character; its bytes wait for the rest. The text of all
    tokens, `after` included, is that of `after` and then the pieces that are returned.

    Args:
        after: tokens whose text is known already, the left neighbours of the first one pushed.
    """

    def __init__(self, tokenizer: Tokenizer, after: Iterable[int] = ()) -> None:
        self._decoder = tokenizer.text_decoder()
        for token in after:
            self._decoder.push(token)
        self._known = (
            self._decoder.rest()
        )  # held back, but part of the text of `after` all the same

    def push(self, token: int) -> str:
        """Return the text that one further token completes; possibly none.

        Raises:
            TokenizerError: the number lies outside the vocabulary.
        """
        return self._new(self._decoder.push(token))

    def finish(self) -> str:
        """Return what is left; bytes that never became a character are U+FFFD."""
        return self._new(self._decoder.finish())

    def _new(self, text: str) -> str:
        """Return a text without what is known of it."""
        if not text or not self._known:
            return text
        known, self._known = self._known, ""
        if known.startswith(text):
            self._known = known[len(text) :]
            return ""
        return text.removeprefix(known)


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """Return what each token adds to the text of all; a character stands with its last token."""
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(int(token)) for token in tokens]
    if pieces:
        pieces[-1] += stream.finish()
    return pieces
