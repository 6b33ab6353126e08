"""The log-probability that a model gives each token of a text, for many texts at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.batch import IGNORE
from coterie.evaluate.routing import LoadCounter
from coterie.evaluate.windows import Window, all_windows
from coterie.foundation.errors import DataError
from coterie.generate.modes import evaluation
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.tokenizer.interface import Tokenizer

_LOGITS_AT_ONCE = 1 << 26
"""The most logits of one call, were they all made at once (256 MiB in float32)."""
_ROWS = 256
"""The most rows of one call: short texts gain nothing from more."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class TextScore:
    """A text, its tokens, and the log-probability of each in nats, given those before it."""

    text: str
    tokens: list[int]
    logprobs: Float[Tensor, " T"]


@dataclass(frozen=True)
class Scoring:
    """How texts are read to be scored.

    Attributes:
        window: the most tokens that one token is predicted from; None: the model's context. More
            than that is possible where the positions have no limit.
        stride: tokens between windows; None: as many as a window holds. See `windows`.
    """

    window: int | None = None
    stride: int | None = None

    def window_of(self, decoder: Decoder) -> int:
        """Return how many inputs a window of this model has at most."""
        return decoder.settings.context if self.window is None else self.window

    def convention(self, decoder: Decoder) -> str:
        """Return what the cutting is called: disjoint or sliding windows, and their sizes."""
        window = self.window_of(decoder)
        if self.stride in (None, window):
            return f"disjoint, of {window:,} tokens"
        return f"sliding, of {window:,} tokens every {self.stride:,}"


DISJOINT = Scoring()


def framed_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text, before them the one from which its first is predicted.

    That is the token that begins texts, or else an end-of-text token, as before a document in
    training. The token that a tokenizer puts after every text stands at the end.

    Raises:
        DataError: there is nothing to predict.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise DataError("There is no text to evaluate: it is empty.")
    framed = tokenizer.framed(tokens)
    if tokenizer.begin_of_text is None:
        framed = [tokenizer.start_of_text, *framed]
    if len(framed) < 2:
        raise DataError("There is no text to evaluate but the token that begins it.")
    return framed


def score_texts(
    decoder: Decoder,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    scoring: Scoring = DISJOINT,
    loads: LoadCounter | None = None,
    progress: Progress = lambda done: None,
) -> list[TextScore]:
    """Score every token of some texts, many windows in each call.

    A text's figures are the same alone or among others, up to rounding.

    Args:
        decoder: the model, in any mode, which it keeps.
        loads: counts where the tokens were routed; those that windows share count in each.
        progress: told how many characters were read so far.

    Raises:
        DataError: a text is empty.
        UserError: the stride lies outside the window, or that beyond the positions of the model.
    """
    texts = list(texts)
    framed = [framed_text(tokenizer, text) for text in texts]
    size = sum(map(len, texts)) / max(sum(map(len, framed)) - len(framed), 1)
    found = sequence_logprobs(
        decoder, framed, scoring, loads, lambda tokens: progress(round(tokens * size))
    )
    return [
        TextScore(text, tokens[1:], scores)
        for text, tokens, scores in zip(texts, framed, found, strict=True)
    ]


def score_text(
    decoder: Decoder, tokenizer: Tokenizer, text: str, scoring: Scoring = DISJOINT
) -> TextScore:
    """Score every token of one text; see `score_texts` for arguments and errors."""
    return score_texts(decoder, tokenizer, [text], scoring)[0]


def token_logprobs(
    decoder: Decoder, tokens: Sequence[int], scoring: Scoring = DISJOINT
) -> Float[Tensor, " T"]:
    """Return the log-probability of every token but the first; see `sequence_logprobs`."""
    return sequence_logprobs(decoder, [tokens], scoring)[0]


def sequence_logprobs(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    scoring: Scoring = DISJOINT,
    loads: LoadCounter | None = None,
    progress: Progress = lambda done: None,
) -> list[Float[Tensor, " T"]]:
    """Return, for each sequence, the log-probability in nats of every token but the first.

    Each is conditioned on what its window holds of the past: see `coterie.evaluate.windows`. The
    results lie on the CPU, in the type of the logits and at least in float32. Windows of all
    sequences are read together, those of like length side by side, the shorter ones padded.

    Args:
        decoder: the model, in any mode, which it keeps.
        progress: told how many tokens were scored so far.

    Raises:
        DataError: a token lies outside the vocabulary.
        UserError: the stride lies outside the window, or that beyond the positions of the model.
    """
    window, vocabulary = scoring.window_of(decoder), decoder.settings.known_vocab_size()
    rows = [torch.as_tensor(each, dtype=torch.long) for each in sequences]
    for row in rows:
        if len(row) and not 0 <= int(row.min()) <= int(row.max()) < vocabulary:
            odd = row[(row < 0) | (row >= vocabulary)]
            raise DataError(
                f"Token {int(odd[0])} lies outside the model's vocabulary (0 … {vocabulary - 1:,})."
            )
    cuts = all_windows(map(len, rows), window, scoring.stride)
    pieces: list[list[tuple[int, Tensor]]] = [[] for _ in rows]
    done = 0
    for batch in _batches(cuts, windows_at_once(decoder) * decoder.settings.context):
        scores = _scores(decoder, [(rows[number], cut) for number, cut in batch], loads)
        for (number, cut), row in zip(batch, scores, strict=True):
            own = row[cut.scored - cut.start - 1 : cut.stop - cut.start]
            pieces[number].append((cut.scored, own.clone()))
            done += len(own)
        progress(done)
    return [_in_order(each) for each in pieces]


def windows_at_once(decoder: Decoder) -> int:
    """Return how many windows of full context may be read in one call: at least 1, at most 16."""
    logits = decoder.settings.context * (decoder.settings.vocab_size or 1)
    return min(max(_LOGITS_AT_ONCE // logits, 1), 16)


def _scores(
    decoder: Decoder, batch: list[tuple[Tensor, Window]], loads: LoadCounter | None
) -> Float[Tensor, "B T"]:
    """Return the log-probabilities of the targets of some windows; beyond a row's end, zeros."""
    device = next(decoder.parameters()).device
    lengths = tuple(cut.stop - cut.start for _, cut in batch)
    inputs = torch.zeros(len(batch), max(lengths), dtype=torch.long)
    targets = torch.full_like(inputs, IGNORE)
    for row, ((tokens, cut), length) in enumerate(zip(batch, lengths, strict=True)):
        inputs[row, :length] = tokens[cut.start : cut.stop]
        targets[row, :length] = tokens[cut.start + 1 : cut.stop + 1]
    even = min(lengths) == max(lengths)
    context = ForwardContext(lengths=None if even else lengths)
    with evaluation(decoder):
        output = decoder(inputs.to(device), targets.to(device), context)
        assert output.losses is not None
        scores = (-output.losses).cpu()
    if loads is not None:
        loads.add(output.router_stats)
    return scores


def _batches(cuts: list[tuple[int, Window]], budget: int) -> Iterator[list[tuple[int, Window]]]:
    """Yield windows, the longest first, together as long as their padded rows fit the budget."""
    at = 0
    while at < len(cuts):
        longest = cuts[at][1].stop - cuts[at][1].start
        count = min(max(budget // longest, 1), _ROWS)
        yield cuts[at : at + count]
        at += count


def _in_order(pieces: list[tuple[int, Tensor]]) -> Float[Tensor, " T"]:
    """Return the scores of one sequence from those of its windows."""
    ordered = [scores for _, scores in sorted(pieces, key=lambda piece: piece[0])]
    return torch.cat(ordered) if ordered else torch.empty(0)
