"""Reading tokens with a decoder: through a cache or anew, and what happens beyond the context.

A decoder reads positions 0, 1, 2, … of a stretch of text. Where positions may go on for ever
(rotary or none, and every attention layer with a window of its own and nothing beyond it, neither
sinks nor summaries), the stretch never ends. Otherwise it holds at most the model's context: when
it is full, a new stretch begins with the latest half of it, read again from position 0, so that a
long text costs one such reading every half context; the token that begins texts, where there is
one, stays first. Where positions are `stable` only up to some length (their turn then depends on
how long the text is, as with dynamic NTK scaling), a longer stretch is read anew for each token,
for nothing kept would still be right. All caches, `none` included, follow the same rules, and so
give the same text.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache import CacheSettings, CacheStack, PagedStack, PrefixStore
from coterie.generate.cache.exporting import check_exportable, exported, restore
from coterie.generate.modes import evaluation
from coterie.generate.passes import Call, EagerPass, Pass, SeveralSteps, serving
from coterie.generate.sampling.rule import Chosen, Rule
from coterie.model import CacheSpec, Decoder

PIECE = 512
"""Tokens of a prompt that are read at once; longer ones are read piece by piece."""


def cache_specs(decoder: Decoder) -> list[CacheSpec]:
    """Return what each layer's attention needs of the past, from the bottom up."""
    turn = decoder.position.turned_further
    return [replace(plan.attention.cache_spec(), turn=turn) for plan in decoder.settings.plans()]


def position_limit(decoder: Decoder, cache: CacheSettings | None = None) -> int | None:
    """Return the most tokens of one stretch; None where a text may go on for ever.

    Args:
        cache: what is kept; one in which positions move up bounds distances where layers do not.
    """
    position = decoder.position
    moves_up = isinstance(cache, MovesUp) and cache.reach <= decoder.settings.context
    bounded = all(
        (moves_up if spec.window is None else not spec.sinks) and not spec.summaries
        for spec in cache_specs(decoder)
    )
    endless = position.limit is None and position.stable is None and bounded
    return None if endless else position.limit or decoder.settings.context


@runtime_checkable
class MovesUp(Protocol):
    """Settings of a cache whose positions move up to what comes after them."""

    @property
    def reach(self) -> int:
        """The largest distance of a token to one that is kept, in layers without a window."""
        ...


def latest(tokens: list[int], count: int, begin: int | None = None) -> list[int]:
    """Return the last `count` tokens, of which the first is `begin` if that is the text's first."""
    if len(tokens) <= count:
        return tokens
    if count > 1 and begin is not None and tokens[0] == begin:
        return [begin, *tokens[-(count - 1) :]]
    return tokens[-count:]


class _Row:
    """One text: the tokens of its present stretch, and whether they are kept in a cache."""

    def __init__(
        self, tokens: list[int], cached: bool, states: Sequence[Tensor] = (), fresh: bool = True
    ) -> None:
        self.tokens, self.cached = tokens, cached
        self.states, self.fresh = list(states), fresh  # see `DecodeSession.take_states`

    def again(self) -> "_Row":
        """Return a row that goes on from here by itself."""
        return _Row(list(self.tokens), self.cached, self.states, self.fresh)

    def forget_states(self) -> None:
        self.states, self.fresh = [], True


class DecodeSession:
    """Texts on their way through a decoder, each at its own place.

    Args:
        decoder: the model, on any device and in any mode.
        begin: the token with which texts begin, if there is one.
        passes: ways to compute logits, the preferred ones first; the last serves every call. None:
            the decoder itself.
        rollback: how many of the latest tokens `truncate` may take back.
        prefixes: blocks of other texts, for caches that go on from them.
        watch: whether hidden states are kept for `take_states`.
    """

    def __init__(
        self,
        decoder: Decoder,
        settings: CacheSettings,
        begin: int | None = None,
        passes: Sequence[Pass] | None = None,
        rollback: int = 0,
        prefixes: PrefixStore | None = None,
        watch: bool = False,
    ) -> None:
        self._decoder = decoder
        self._settings = settings
        self._begin = begin
        self._passes = (EagerPass(decoder),) if passes is None else tuple(passes)
        self._rollback = rollback
        self._prefixes = prefixes
        self.watch = watch
        self._limit = position_limit(decoder, settings)
        self._stable = decoder.position.stable
        self._specs = cache_specs(decoder)
        self._modules = tuple(decoder.modules())
        self._device = next(decoder.parameters()).device
        self._cache = self._build()
        self._rows: list[_Row] = []
        self._stacked: list[_Row] = []  # those in the cache, in its order

    def _build(self) -> CacheStack | None:
        return self._settings.build(self._specs, self._rollback)

    def empty(self) -> "DecodeSession":
        """Return a session alike that has read nothing."""
        other = copy(self)
        other._cache, other._rows, other._stacked = other._build(), [], []
        return other

    @property
    def cache_nbytes(self) -> int:
        """Memory that the cache holds at present, in bytes."""
        return self._cache.nbytes if self._cache is not None else 0

    @property
    def room(self) -> int | None:
        """How many tokens every text can still take within its stretch and cache; None: any."""
        ends = [end for end in (self._limit, self._stable) if end is not None]
        if not ends:
            return None
        longest = max((len(row.tokens) for row in self._rows), default=0)
        return max(min(ends) - longest, 0)

    def begin(self, texts: Sequence[list[int]]) -> list[tuple[list[int], ...]]:
        """Begin new texts; return what is to be read of them, piece by piece.

        A single text is cut, as `pieces` has it; of several one piece each is returned. Leading
        tokens that the cache finds among those of earlier texts are there already and left out.
        """
        known = self._adopt(texts)
        rest = [text[known:] for text in texts]
        return [(piece,) for piece in self.pieces(rest[0])] if len(rest) == 1 else [tuple(rest)]

    def check_kept(self) -> None:
        """Refuse to begin what `kept` could not save.

        Raises:
            UserError: the cache cannot be saved.
        """
        if self._cache is not None:
            check_exportable(self._cache)

    def kept(self) -> tuple[list[int], dict[str, Tensor]]:
        """Return the tokens of the only text's stretch, and what its cache holds of them.

        Raises:
            UserError: the cache cannot be saved.
        """
        assert len(self._rows) == 1
        row = self._rows[0]
        return list(row.tokens), exported(self._cache) if row.cached and self._cache else {}

    def resume(self, tokens: list[int], tensors: dict[str, Tensor]) -> None:
        """Go on from what `kept` returned, in a session that has read nothing."""
        self._rows = [_Row(list(tokens), cached=bool(tensors))]
        self._stacked = [row for row in self._rows if row.cached]
        if tensors:
            assert self._cache is not None
            with torch.inference_mode():
                on_device = {name: each.to(self._device) for name, each in tensors.items()}
                restore(self._cache, tokens, on_device)

    def _adopt(self, texts: Sequence[list[int]]) -> int:
        """Return how many leading tokens of all texts the cache has taken over."""
        stable = self._stable
        if self._prefixes is None or not isinstance(self._cache, PagedStack):
            return 0
        if stable is not None and max(map(len, texts)) > stable:
            return 0
        with torch.inference_mode():
            known = self._cache.adopt(texts, self._prefixes)
        if known:
            self._rows = [_Row(text[:known], cached=True) for text in texts]
            self._stacked = list(self._rows)
        return known

    def pieces(self, tokens: list[int]) -> list[list[int]]:
        """Return a new text cut into pieces to be read one after the other.

        Where nothing of it would be kept it is one piece. The cuts depend on nothing but the text,
        so that a cache that forgets gives the same whatever else is read.
        """
        kept = self._cache is not None and (self._stable is None or len(tokens) <= self._stable)
        return _pieces(tokens) if kept else [tokens]

    def read(self, tokens: Int[Tensor, "B T"] | Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read further tokens of each text, at least one, and return the logits of the next one.

        The first call says how many texts there are.
        """
        return self.read_last(tokens, 1)[:, -1]

    def read_last(
        self, tokens: Int[Tensor, "B T"] | Sequence[Sequence[int]], last: int
    ) -> Float[Tensor, "B n V"]:
        """Read further tokens of each text; return the logits after each of the last of them.

        Where a text began a new stretch, it is as if it had been read from there alone.
        """
        new = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        if not self._rows:
            self._rows = [_Row([], self._cache is not None) for _ in new]
            self._stacked = [row for row in self._rows if row.cached]
        for row, more in zip(self._rows, new, strict=True):
            row.tokens.extend(more)
        restarted = self._move_on()
        with evaluation(self._decoder, self._modules):
            if self._stacked == self._rows:  # the common case: nobody moved
                return self._call(new, self._cache, last, self._rows)
            return self._read_apart(new, restarted, last)

    def steps(self, tokens: Sequence[int], rules: Sequence[Rule], most: int) -> list[Chosen] | None:
        """Read a token of each text, choose the next, read that, and so on, in one call.

        A text that ended by its rule must not be read on. None: nothing was read, since this takes
        several calls.
        """
        room = self.room
        most = most if room is None else min(most, room)
        if most < 2 or self._stacked != self._rows or self._cache is None:
            return None
        call = Call(torch.tensor([[token] for token in tokens], device=self._device), self._cache)
        way = serving(self._passes, call)
        if not isinstance(way, SeveralSteps):
            return None
        with evaluation(self._decoder, self._modules):
            made = way.steps(call, rules, most)
        if made is None:
            return None
        for row, token, chosen in zip(self._rows, tokens, made, strict=True):
            row.tokens += [token, *chosen.tokens[:-1]]
            row.forget_states()
        return made

    def _move_on(self) -> list[_Row]:
        """Begin new stretches and give up caches where that is due; return the rows that begin."""
        limit, stable = self._limit, self._stable
        restarted = []
        if limit is not None:
            restarted = [row for row in self._rows if len(row.tokens) > limit]
            for row in restarted:
                row.tokens = latest(row.tokens, max(limit // 2, 1), self._begin)
                row.forget_states()
                row.cached = self._cache is not None
        unstable = []
        if stable is not None:
            unstable = [row for row in self._rows if row.cached and len(row.tokens) > stable]
            for row in unstable:  # for the rest of this stretch
                row.cached = False
        gone = {*map(id, restarted), *map(id, unstable)}
        if gone:
            self._keep_stacked([at for at, row in enumerate(self._stacked) if id(row) not in gone])
        return [row for row in restarted if row.cached]

    def _keep_stacked(self, places: list[int]) -> None:
        """Keep only these rows of the cache, in this order."""
        self._stacked = [self._stacked[at] for at in places]
        if not places:
            self._cache = self._build()
        elif self._cache is not None:
            with torch.inference_mode():
                self._cache.select(torch.tensor(places, device=self._device))

    def _read_apart(
        self, new: Sequence[Sequence[int]], restarted: list[_Row], last: int
    ) -> Float[Tensor, "B n V"]:
        """Read rows some of which have no cache, or begin to fill one."""
        found: dict[int, Tensor] = {}

        def keep(rows: list[_Row], logits: Tensor) -> None:
            found.update(zip(map(id, rows), logits, strict=True))

        if self._stacked:
            news = {id(row): more for row, more in zip(self._rows, new, strict=True)}
            pieces = [news[id(row)] for row in self._stacked]
            keep(self._stacked, self._call(pieces, self._cache, last, self._stacked))
        alone = [row for row in self._rows if not row.cached]
        if alone:
            for row in alone:
                row.forget_states()
            keep(alone, self._call([row.tokens for row in alone], None, last, alone))
        if restarted:
            cache = self._build()
            assert cache is not None
            assert self._cache is not None
            # All are equally long: the latter half of a context.
            pieces = list(zip(*(_pieces(row.tokens) for row in restarted), strict=True))
            for piece in pieces[:-1]:
                self._call(piece, cache, last, restarted)
            keep(restarted, self._call(pieces[-1], cache, last, restarted))
            self._cache.join(cache)
            self._stacked = [*self._stacked, *restarted]
        least = min(each.shape[0] for each in found.values())
        return torch.stack([found[id(row)][-least:] for row in self._rows])

    def _call(
        self,
        rows: Sequence[Sequence[int]],
        cache: CacheStack | None,
        last: int,
        owners: Sequence[_Row],
    ) -> Float[Tensor, "B n V"]:
        """Read tokens of rows, however many of each."""
        lengths = tuple(map(len, rows))
        longest = max(lengths)

        def keep(hidden: Tensor) -> None:
            for owner, own, length in zip(owners, hidden, lengths, strict=True):
                owner.states.append(own[:length])

        watch = keep if self.watch else None
        if min(lengths) == longest:
            call = Call(torch.tensor(rows, device=self._device), cache, None, last, watch)
        else:
            tokens = torch.tensor(_padded(rows), device=self._device)
            call = Call(tokens, cache, lengths, last, watch)
        return serving(self._passes, call).read(call)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch, in this order; a row may be named more than once."""
        assert self._rows, "nothing was read yet"
        at = {id(row): place for place, row in enumerate(self._stacked)}
        kept = [self._rows[row] for row in rows]
        places = [at[id(row)] for row in kept if row.cached]
        once = len(set(rows)) == len(rows)
        self._rows = kept if once else [row.again() for row in kept]
        if places != list(range(len(self._stacked))):
            self._keep_stacked(places)
        self._stacked = [row for row in self._rows if row.cached]

    def take_states(self, row: int) -> tuple[Float[Tensor, "n D"] | None, bool]:
        """Return what the last block made of a text's latest tokens, all since this was last asked.

        Returns:
            The hidden states, None where there are none, and whether they do not go on from those
            before: a new stretch began, or tokens were read of which nothing was kept.
        """
        of = self._rows[row]
        states, fresh = torch.cat(of.states) if of.states else None, of.fresh
        of.states, of.fresh = [], False
        return states, fresh

    def truncate(self, counts: Sequence[int]) -> None:
        """Take back so many of each text's latest tokens, fewer than its present stretch has.

        Raises:
            ValueError: they are more than `rollback` and the cache has dropped what stood before.
        """
        for row, count in zip(self._rows, counts, strict=True):
            assert 0 <= count < len(row.tokens)
            del row.tokens[len(row.tokens) - count :]
            if count and row.states:  # of the latest call, which read as many and more
                row.states[-1] = row.states[-1][: len(row.states[-1]) - count]
        if not self._stacked or self._cache is None:
            return
        taken = {id(row): count for row, count in zip(self._rows, counts, strict=True)}
        before = zip(self._cache.lengths, self._stacked, strict=True)
        lengths = tuple(length - taken[id(row)] for length, row in before)
        with torch.inference_mode():
            state = None
            if self._cache.state and lengths != self._cache.lengths:
                state = self._decoder.carried(
                    torch.tensor(
                        _padded([row.tokens for row in self._stacked]), device=self._device
                    ),
                    lengths,
                    CacheStack([]),
                )
            self._cache.truncate(lengths, state)

    def join(self, other: "DecodeSession") -> None:
        """Put the texts of another session, made alike, after one's own; it is not used again."""
        if self._cache is not None:
            assert other._cache is not None
            with torch.inference_mode():
                self._cache.join(other._cache)
        self._rows = [*self._rows, *other._rows]
        self._stacked = [*self._stacked, *other._stacked]


def _padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [[*row, *[0] * (longest - len(row))] for row in rows]


def _pieces(tokens: list[int]) -> list[list[int]]:
    return [tokens[start : start + PIECE] for start in range(0, len(tokens), PIECE)]
