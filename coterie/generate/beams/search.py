"""The search itself: beams are rows of one session, extended, ranked and selected step by step.

Ranking, ends and the rules of early stopping are those of transformers' beam search; groups are
those of Vijayakumar et al. 2016, “Diverse Beam Search” (arXiv:1610.02424), with the Hamming
distance of the tokens of one step. The penalty between groups decides which beams go on and does
not enter their scores.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.beams.settings import BeamSettings
from coterie.generate.sampling import Sampler
from coterie.generate.sampling.candidates import largest


@runtime_checkable
class Reader(Protocol):
    """What reads the tokens of all beams: a `DecodeSession`, as far as a search needs one."""

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """Read further tokens of each row; return the logits of the one that comes next."""
        ...

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, in this order; a row may be named more than once."""
        ...


class Node(NamedTuple):
    """The last token of a beam, and the beam before it; beams share their beginnings."""

    token: int
    logprob: float
    before: "Node | None"


class Beam(NamedTuple):
    """A text in the making.

    Attributes:
        row: where the session holds it.
        score: its log-probability in nats.
        sampler: says what may follow.
        last: its last token; None: nothing but the prompt.
    """

    row: int
    score: float
    sampler: Sampler
    last: Node | None = None


class Hypothesis(NamedTuple):
    """A text that has ended.

    Attributes:
        tokens: with the one that ended it.
        logprobs: of each token, in nats, after bias, constraints and penalties.
        score: their sum, divided by the length to the power of the length penalty.
        ended: whether a token ended it, rather than the length.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    ended: bool


class _Extension(NamedTuple):
    rank: float  # its score, less what other groups make of it
    beam: Beam
    token: int
    logprob: float


@dataclass
class _Group:
    """Beams that compete with each other; the best come first."""

    running: list[Beam]
    finished: list[Hypothesis] = field(default_factory=list)


def search(
    session: Reader,
    prompt: Sequence[int],
    settings: BeamSettings,
    sampler: Sampler,
    ends: frozenset[int],
    vocab_size: int,
) -> list[Hypothesis]:
    """Return the best continuations of a prompt, the best first, at most `width`.

    Args:
        session: that has read nothing.
        sampler: of the prompt: its bias, constraints, penalties and lengths hold for every beam.
        ends: the tokens that end a text.

    Raises:
        UserError: constraints leave no text.
    """
    size = settings.width // settings.groups
    groups = [_Group([Beam(0, 0.0, sampler)]) for _ in range(settings.groups)]
    logits = session.read(torch.tensor([list(prompt)]))
    for length in range(1, sampler.settings.max_tokens + 1):
        taken: Counter[int] = Counter()
        rows = logits[:, :vocab_size].detach().cpu()
        for group in groups:
            if group.running:
                _extend(group, rows, prompt, settings, ends, length, size, taken)
        live = [beam for group in groups for beam in group.running]
        if not live:
            break
        session.select([beam.row for beam in live])
        places = iter(range(len(live)))
        for group in groups:
            group.running = [beam._replace(row=next(places)) for beam in group.running]
        logits = session.read(torch.tensor([[_last(beam).token] for beam in live]))
    found = [each for group in groups for each in group.finished]
    if not found:
        raise UserError(
            "The constraints leave no text that the beams could end with.",
            hint="Loosen one of sample.constraints, give another prompt, or more beams.width.",
        )
    return sorted(found, key=lambda each: -each.score)


def _extend(
    group: _Group,
    rows: Float[Tensor, "R V"],
    prompt: Sequence[int],
    settings: BeamSettings,
    ends: frozenset[int],
    length: int,
    size: int,
    taken: Counter[int],
) -> None:
    """Extend the beams of a group by a token, sort out those that end, and see who goes on.

    Args:
        group: whose beams; changed.
        rows: the logits of all beams.
        length: of the texts with the new token, the prompt left out.
        size: beams of a group.
        taken: how many beams of earlier groups took each token at this step; counted on.
    """
    sampling = group.running[0].sampler.settings
    keep = (1 + len(ends)) * size  # so many that `size` of them do not end
    found = [
        extension
        for beam in group.running
        for extension in _extensions(beam, rows[beam.row], prompt, keep, settings, taken)
    ]
    found.sort(key=lambda each: -each.rank)
    last, going = length == sampling.max_tokens, []
    for place, each in enumerate(found[:keep]):
        if not last and each.token not in ends:
            if len(going) < size:
                going.append(each)
        elif place < size:
            group.finished.append(_finished(each, length, settings, each.token in ends))
    group.finished.sort(key=lambda each: -each.score)
    del group.finished[size:]
    taken.update(each.token for each in going)
    group.running = []
    if going and not _is_done(group, going[0], settings, length, size, sampling.max_tokens):
        group.running = [_grown(each) for each in going]


def _extensions(
    beam: Beam,
    row: Float[Tensor, " V"],
    prompt: Sequence[int],
    keep: int,
    settings: BeamSettings,
    taken: Counter[int],
) -> Iterator[_Extension]:
    """Yield the likeliest extensions of a beam."""
    needs_past = beam.sampler.settings.repetition_penalty != 1
    past = [*prompt, *(node.token for node in _nodes(beam.last))] if needs_past else []
    try:
        candidates = beam.sampler.penalised(row, past)
    except UserError:  # its constraints lead nowhere; other beams may do better
        return
    ranks = candidates.logits
    if taken:
        ranks = ranks.copy()
        ranks[candidates.places(taken)] -= [
            settings.diversity_penalty * taken[candidates.token(place)]
            for place in candidates.places(taken).tolist()
        ]
    for place in largest(ranks, keep).tolist():
        logprob, rank = float(candidates.logits[place]), float(ranks[place])
        if logprob > -torch.inf:
            yield _Extension(beam.score + rank, beam, candidates.token(place), logprob)


def _is_done(
    group: _Group, best: _Extension, settings: BeamSettings, length: int, size: int, most: int
) -> bool:
    """Whether a group need not go on: it has its texts, and better ones are not to be expected."""
    if len(group.finished) < size:
        return False
    if settings.early_stopping is True:
        return True
    power = settings.length_penalty
    hoped = most if settings.early_stopping == "never" and power > 0 else length
    reachable = (best.beam.score + best.logprob) / hoped**power
    return reachable <= group.finished[-1].score


def _grown(each: _Extension) -> Beam:
    sampler = each.beam.sampler.fork()
    sampler.note(each.token)
    node = Node(each.token, each.logprob, each.beam.last)
    return Beam(each.beam.row, each.beam.score + each.logprob, sampler, node)


def _finished(each: _Extension, length: int, settings: BeamSettings, ended: bool) -> Hypothesis:
    nodes = _nodes(Node(each.token, each.logprob, each.beam.last))
    score = (each.beam.score + each.logprob) / length**settings.length_penalty
    tokens, logprobs = (tuple(values) for values in zip(*(node[:2] for node in nodes), strict=True))
    return Hypothesis(tokens, logprobs, score, ended)


def _nodes(last: Node | None) -> list[Node]:
    """Return the tokens of a beam in their order."""
    nodes = []
    while last is not None:
        nodes.append(last)
        last = last.before
    return nodes[::-1]


def _last(beam: Beam) -> Node:
    assert beam.last is not None, "a beam that goes on has grown"
    return beam.last
