"""Which request is read when: texts join a running batch, leave it, and wait for a place in it.

Each step reads prompts, up to a budget of tokens, and then a further token of every running text,
or several where the pass chooses them itself. Prompts that wait are read first come, first served;
short ones together, long ones piece by piece over several steps, so that running texts are not kept
waiting for a whole prompt; equal prompts that follow each other are read once. Texts with different
caches or passes run in groups of their own. Nothing that a text is told depends on the others: its
prompt is cut where it would be alone, it has a row of its own in the cache, and draws from its own
random stream.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from coterie.generate.cache import CacheSettings
from coterie.generate.memory import CacheMemory
from coterie.generate.passes import Compute
from coterie.generate.request import Piece, Request
from coterie.generate.sampling import SamplingSettings
from coterie.generate.session import PIECE, DecodeSession
from coterie.generate.text import Text

Happened = list[tuple[Text, Piece]]
Means = tuple[CacheSettings, Compute, int, bool]
"""What texts that run together share: cache, passes, how many tokens can be taken back, and whether
hidden states are kept."""


@dataclass
class _Group:
    """Running texts of one kind of cache and of passes, in the order of their rows."""

    means: Means
    session: DecodeSession
    texts: list[Text] = field(default_factory=list)


@dataclass
class _Reading:
    """Prompts on their way through the decoder.

    Attributes:
        session: that reads them.
        pieces: still to be read, of each prompt.
        shared: the texts that go on from each prompt.
    """

    session: DecodeSession
    pieces: Iterator[tuple[list[int], ...]]
    shared: list[list[Text]]
    left: int

    @property
    def texts(self) -> list[Text]:
        return [text for texts in self.shared for text in texts]


class Scheduler:
    """Texts that wait, are being read, and run.

    Args:
        new_session: returns a session with the cache and the passes of these settings.
        max_batch: texts that run at the same time.
        budget: tokens of prompts that are read in one step; at least one piece is.
    """

    def __init__(
        self,
        new_session: Callable[[SamplingSettings], DecodeSession],
        memory: CacheMemory,
        max_batch: int,
        budget: int = PIECE,
    ) -> None:
        assert max_batch >= 1
        self._new_session, self._memory = new_session, memory
        self._max_batch, self._budget = max_batch, budget
        self._waiting: deque[Text] = deque()
        self._reading: _Reading | None = None
        self._groups: list[_Group] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        read = len(self._reading.texts) if self._reading else 0
        return read + sum(len(group.texts) for group in self._groups)

    def add(self, text: Text) -> None:
        text.cache_size = self._memory.size(text.request.sampling, len(text.prompt))
        self._waiting.append(text)

    def cancel(self, request: Request) -> bool:
        """Forget a request, wherever it is; return whether it was there."""
        for text in self._waiting:
            if text.request is request:
                self._waiting.remove(text)
                return True
        for text in self._reading.texts if self._reading else ():
            if text.request is request:
                text.finished = True  # it does not join; the others' prompts are read on
                return True
        for group in self._groups:
            for text in group.texts:
                if text.request is request:
                    text.finished = True
                    self._leave(group)
                    self._groups = [each for each in self._groups if each.texts]
                    return True
        return False

    def step(self) -> Happened:
        """Read prompts and a token or more of each running text; return what that gave.

        Texts that begin alone say their first token at once and are read on in the next step.
        """
        happened: Happened = []
        self._read_prompts(happened)
        begun = {id(text) for text, _ in happened}
        for group in self._groups:
            if not all(id(text) in begun for text in group.texts):
                self._decode(group, happened)
        self._groups = [group for group in self._groups if group.texts]
        return happened

    def _read_prompts(self, happened: Happened) -> None:
        budget = self._budget
        while budget > 0:
            if self._reading is None:
                self._reading = self._admit(happened)
            reading = self._reading
            if reading is None:
                return
            piece = next(reading.pieces)
            reading.left -= 1
            budget -= sum(map(len, piece))
            try:
                logits = reading.session.read(piece)
            except Exception as error:  # nobody else is in this session
                self._reading = None
                happened.extend((text, text.fail(error)) for text in reading.texts)
                continue
            if not reading.left:
                self._reading = None
                self._begin(reading, logits, happened)

    def _admit(self, happened: Happened) -> _Reading | None:
        """Take prompts from those that wait: a long one, or short ones that fit the budget."""
        self._refuse_too_large(happened)
        free = self._places()
        if free < 1:
            return None
        first = self._waiting[0]
        means = _means(first.request.sampling)
        session = self._session(first.request.sampling)
        pieces = session.pieces(first.prompt)
        prompts: list[list[int]] = []
        shared: list[list[Text]] = []
        while self._waiting and free:
            text = self._waiting[0]
            if _means(text.request.sampling) != means:
                break
            if prompts and text.prompt == prompts[-1]:
                shared[-1].append(text)
            elif not prompts or (
                len(pieces) == 1
                and (sum(map(len, prompts)) + len(text.prompt)) <= min(self._budget, PIECE)
            ):
                prompts.append(text.prompt)
                shared.append([text])
            else:
                break
            self._waiting.popleft()
            free -= 1
        cut = session.begin(prompts)
        return _Reading(session, iter(cut), shared, len(cut))

    def _refuse_too_large(self, happened: Happened) -> None:
        """End texts, first in the queue, whose cache would not fit even if they ran alone."""
        while self._waiting:
            text = self._waiting[0]
            error = self._memory.refuses(
                text.request.sampling, len(text.prompt), self._held_bytes()
            )
            if error is None:
                return
            self._waiting.popleft()
            happened.append((text, text.fail(error)))

    def _places(self) -> int:
        """Return how many of the waiting texts may join, as far as rows and memory go."""
        if not self._waiting:
            return 0
        texts = [text for group in self._groups for text in group.texts]
        texts += self._reading.texts if self._reading else []
        free = self._max_batch - len(texts)
        if free < 1:
            return 0
        largest = max(text.cache_size for text in [*texts, self._waiting[0]])
        fitting = self._memory.rows(largest, self._held_bytes())
        return max(min(free, fitting - len(texts)), 0 if texts else 1)

    def _held_bytes(self) -> int:
        return sum(group.session.cache_nbytes for group in self._groups)

    def _session(self, sampling: SamplingSettings) -> DecodeSession:
        """Return a new session with the cache and the passes of these settings."""
        for group in self._groups:
            if group.means == _means(sampling):
                return group.session.empty()
        return self._new_session(sampling)

    def _begin(self, reading: _Reading, logits: Float[Tensor, "B V"], happened: Happened) -> None:
        """Choose the first token of texts whose prompts are read; those that go on run."""
        rows, texts = [], []
        for row, (own, shared) in enumerate(zip(logits, reading.shared, strict=True)):
            for text in shared:
                if text.finished:  # cancelled
                    continue
                happened.append((text, text.advance(own)))
                if not text.finished:
                    rows.append(row)
                    texts.append(text)
        if not texts:
            return
        if rows != list(range(len(reading.shared))):
            reading.session.select(rows)
        means = _means(texts[0].request.sampling)
        for group in self._groups:
            if group.means == means:
                group.session.join(reading.session)
                group.texts += texts
                return
        self._groups.append(_Group(means, reading.session, texts))

    def _decode(self, group: _Group, happened: Happened) -> None:
        """Read the latest token of a group's texts, and choose the next ones.

        A text that runs alone may guess further ones, which are read with it.
        """
        alone = group.texts[0] if len(group.texts) == 1 else None
        started = time.perf_counter()
        # Modules cost time even where they come to no guess.
        tried = alone is not None and group.session.watch and alone.pacing.wants
        draft = [] if alone is None else self._draft(group.session, alone)
        try:
            if alone is not None and draft:
                self._decode_draft(group.session, alone, draft, happened, started)
                self._leave(group)
                return
            if not tried and self._decode_several(group, happened, started):
                return
            logits = group.session.read([[text.past[-1]] for text in group.texts])
        except Exception as error:  # it is not known whose it is, and the caches are in pieces
            happened.extend((text, text.fail(error)) for text in group.texts)
            group.texts = []
            return
        for text, own in zip(group.texts, logits.unbind(), strict=True):
            happened.append((text, text.advance(own)))
        if alone is not None:
            alone.pacing.note(time.perf_counter() - started, 1, guessed=tried)
        self._leave(group)

    def _decode_several(self, group: _Group, happened: Happened, started: float) -> bool:
        """Choose several tokens of each text in one call; return whether that could be done."""
        rules = [text.rule for text in group.texts]
        known = [rule for rule in rules if rule is not None]
        if len(known) < len(rules):
            return False
        most = max(rule.left for rule in known)
        made = group.session.steps([text.past[-1] for text in group.texts], known, most)
        if made is None:
            return False
        for text, chosen in zip(group.texts, made, strict=True):
            happened.extend((text, piece) for piece in text.take(chosen))
        if len(made) == 1:
            each = (time.perf_counter() - started) / len(made[0].tokens)
            group.texts[0].pacing.note(each, 1, guessed=False)
        self._leave(group)
        return True

    def _draft(self, session: DecodeSession, text: Text) -> list[int]:
        """Return guesses that fit the text's stretch beside its latest token."""
        room = session.room
        return text.draft(None if room is None else room - 1, lambda: session.take_states(0))

    def _decode_draft(
        self,
        session: DecodeSession,
        text: Text,
        draft: list[int],
        happened: Happened,
        started: float,
    ) -> None:
        """Read a text's latest token and guesses; keep those that it would have chosen."""
        logits = session.read_last([[text.past[-1], *draft]], len(draft) + 1)
        pieces = text.advance_past(draft, logits[0])
        if not text.finished:
            session.truncate([len(draft) + 1 - len(pieces)])
        happened.extend((text, piece) for piece in pieces)
        text.pacing.note(time.perf_counter() - started, len(pieces), guessed=True)

    def _leave(self, group: _Group) -> None:
        """Let finished texts go; the last ones take their places, so that few rows move."""
        texts = group.texts
        staying = [row for row, text in enumerate(texts) if not text.finished]
        if len(staying) == len(texts):
            return
        holes = [row for row, text in enumerate(texts) if text.finished and row < len(staying)]
        places = dict(zip(holes, staying[len(staying) - len(holes) :], strict=True))
        order = [places.get(row, row) for row in range(len(staying))]
        group.texts = [texts[row] for row in order]
        if order:
            group.session.select(order)


def _means(sampling: SamplingSettings) -> Means:
    guess = sampling.speculation
    return sampling.cache, sampling.compute, guess.most, guess.watches
