"""The best of several texts: candidates of one request, ranked by what the model thinks of them.

A candidate's score is the mean log-probability of its tokens in nats, the model's own, before
temperature and constraints: so what constraints made the model say against its will ranks low.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

from coterie.generate.request import NO_TOKEN, Piece, Request
from coterie.generate.text import Text


def candidates(request: Request) -> list[Request]:
    """Return the requests of which one answers a request: itself, or as many as `best_of` says.

    Their seeds count up from the request's.
    """
    sampling = request.sampling
    if sampling.best_of == 1:
        return [request]
    alone = sampling.model_copy(update={"best_of": 1})
    seed = sampling.seed if request.seed is None else request.seed
    return [
        replace(
            request, sampling=alone, seed=seed + number,
            constraints=copy.deepcopy(request.constraints),
        )
        for number in range(sampling.best_of)
    ]  # fmt: skip


class Contest:
    """Candidates on their way; the best is known when all have ended."""

    def __init__(self, request: Request, texts: Sequence[Text]) -> None:
        self.request = request
        self._pieces: dict[int, tuple[Text, list[Piece]]] = {id(each): (each, []) for each in texts}

    def note(self, text: Text, piece: Piece) -> Iterator[tuple[Text, Piece]]:
        """Take note of a candidate's piece; yield those of the best once all have ended.

        The last piece has the scores of all, None for those that failed.
        """
        self._pieces[id(text)][1].append(piece)
        if not all(pieces and pieces[-1].finish_reason for _, pieces in self._pieces.values()):
            return
        scores = [_score(pieces) for _, pieces in self._pieces.values()]
        ranked = [float("-inf") if score is None else score for score in scores]
        best, pieces = list(self._pieces.values())[ranked.index(max(ranked))]
        for each in pieces[:-1]:
            yield best, each
        yield best, pieces[-1]._replace(scores=tuple(scores))


def _score(pieces: Sequence[Piece]) -> float | None:
    if pieces[-1].error is not None:
        return None
    written = [piece.logprob for piece in pieces if piece.token != NO_TOKEN]
    return sum(written) / len(written)
