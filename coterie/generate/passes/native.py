"""Single tokens by our own kernels, over caches whose memory they can read and write.

Weights are read once for all rows, without a call of torch. Prompts are left to torch, whose matrix
products are better when there are many tokens.
"""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import CoterieError
from coterie.generate import native
from coterie.generate.cache.stack import CacheStack, Placement
from coterie.generate.native.operations import MOST_ENDS, MOST_STEPS
from coterie.generate.passes.interface import Call
from coterie.generate.sampling.rule import Chosen, Rule
from coterie.model import Decoder

if TYPE_CHECKING:
    from coterie.generate.native.program import Memory, Program

ENTRIES = 16
"""The most tokens of one step: beyond, torch's products are as fast."""
_NOTICED = 0.05  # seconds between pieces of text
MISSING = "numba is not installed (pip install 'coterie[fast]')"


class NativePass:
    """Reads up to `ENTRIES` tokens at once.

    Args:
        decoder: the model, on the CPU.
        notify: told when kernels must be compiled, which happens once per machine.

    Attributes:
        reason: why it serves no call of this decoder; None: it serves some.
    """

    def __init__(self, decoder: Decoder, notify: Callable[[str], None] | None = None) -> None:
        self._decoder = weakref.ref(decoder)  # who keeps a pass need not keep the model
        position = decoder.position
        bounds = [each for each in (position.limit, position.stable) if each is not None]
        self._limit = min(bounds, default=None)
        self._notify = notify or (lambda sentence: None)
        self._program: Program | None = None
        self._lock = threading.Lock()
        self._seconds: dict[int, float] = {}  # of a step of so many rows
        self.reason: str | None = None
        self._build(decoder)

    def _build(self, decoder: Decoder) -> None:
        """Make the program; where that cannot be, say why."""
        self._program = None
        try:
            if find_spec("numba") and not native.compiled_before():
                self._notify("Compiling the kernels for this machine, once: about 20 seconds.")
            self._program = native.Program(decoder, ENTRIES)
        except ImportError:
            self.reason = MISSING
        except CoterieError as error:
            self.reason = str(error)

    def refuses(self, call: Call) -> str | None:
        if self._program is None:
            return self.reason
        batch, number = call.tokens.shape
        cache = call.cache
        if cache is None or not cache.rows:
            return "prompts are read by torch"
        if batch * number > ENTRIES:
            return f"a step reads at most {ENTRIES} tokens"
        if call.lengths is not None and min(call.lengths) < number:
            return "rows have unequally many new tokens"
        if not all(
            whole is not None or (placed is not None and placed.placeable)
            for whole, placed in zip(cache.in_place, cache.placed, strict=True)
        ):
            return "no kernel reads this cache"
        if cache.state.keys() != self._program.carries:
            return "parts of the model carry a state that no kernel knows"
        if number > self._left(cache):
            return "so many tokens go beyond the positions that the model or its cache has"
        return None

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        cache, program = call.cache, self._current()
        assert cache is not None
        batch, number = call.tokens.shape
        rows = [row for row in range(batch) for _ in range(number)]
        at = [past + step for past in cache.lengths for step in range(number)]
        memory = _memory(cache, number)
        past = _past(cache, call.tokens, program.lookback) if program.lookback else ()
        with self._lock:  # another engine may use the same decoder
            program.know(cache.state, batch)
            logits = program.step(call.tokens.flatten().tolist(), rows, at, memory, past).clone()
            cache.state = program.known(batch)
            if call.watch is not None:
                call.watch(program.hidden(len(rows)).clone().view(batch, number, -1))
        cache.advance(call.tokens)
        return logits.view(batch, number, -1)[:, -call.last :]

    def steps(self, call: Call, rules: Sequence[Rule], most: int) -> list[Chosen] | None:
        cache, program = call.cache, self._current()
        assert cache is not None
        assert call.tokens.shape[1] == 1
        if any(len(rule.ends) > MOST_ENDS for rule in rules):
            return None
        rows = call.tokens.shape[0]
        most = min(most, MOST_STEPS, self._fitting(rows), self._left(cache))
        tokens, memory = call.tokens[:, 0].tolist(), _memory(cache, most)
        past = _past(cache, call.tokens, program.lookback) if program.lookback else ()
        with self._lock:
            program.know(cache.state, rows)
            began = time.perf_counter()
            made = program.steps(tokens, cache.lengths, memory, rules, most, past)
            took = time.perf_counter() - began
            cache.state = program.known(rows)
        number = max(len(each.tokens) for each in made)
        self._seconds[rows] = took / number
        read = [[token, *each.tokens[:-1]] for token, each in zip(tokens, made, strict=True)]
        whole = [row + row[-1:] * (number - len(row)) for row in read]
        cache.advance(torch.tensor(whole), tuple(map(len, read)))
        return made

    def _left(self, cache: CacheStack) -> int:
        found = [each.left for each in cache.placed if each is not None]
        if self._limit is not None:
            found.append(self._limit - cache.length)
        return min(found, default=MOST_STEPS)

    def _fitting(self, rows: int) -> int:
        """Return how many steps take about as long as a reader does not notice."""
        return max(int(_NOTICED / self._seconds[rows]), 1) if rows in self._seconds else 2

    def _current(self) -> "Program":
        """Return the program of the parameters where they lie now."""
        program = self._program
        assert program is not None
        if not program.current():
            decoder = self._decoder()
            assert decoder is not None
            self._build(decoder)
            program = self._program
            assert program is not None, "the decoder was changed to one without kernels"
        return program


def _memory(cache: CacheStack, extra: int) -> "list[Memory]":
    """Return where each layer's positions are, with room for further ones."""
    cache.reserve(extra)
    found: list[Memory] = []
    for whole, placed in zip(cache.in_place, cache.placed, strict=True):
        if whole is not None:
            found.append(Placement(*whole.memory(extra)))
        else:
            assert placed is not None
            found.append(placed.placed(extra, cache.lengths))
    return found


def _past(cache: CacheStack, tokens: Tensor, lookback: int) -> list[list[int]]:
    """Return the tokens before each new one."""
    recent = cache.recent_tokens(lookback)
    assert recent is not None
    known = torch.cat((recent, tokens), 1).tolist()
    before = recent.shape[1]
    return [
        row[max(before + step - lookback, 0) : before + step]
        for row in known
        for step in range(tokens.shape[1])
    ]
