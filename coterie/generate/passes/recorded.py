"""Decode steps recorded as a CUDA graph, tokens chosen inside it, so that a step needs no Python.

A small model's step is hundreds of kernels of a few microseconds each; launched one by one they
wait for Python, ten times as long as they run. Recorded once per batch and memory, a step is one
launch, and the next one follows from the tokens that it chose without the host looking at them.
The blocks recorded may be compiled ones (`compute=compiled`).
"""

import time
import weakref
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coterie.generate.cache.stack import CacheStack
from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Call
from coterie.generate.passes.static import StaticPast, memory, refusal
from coterie.generate.sampling.on_device import DeviceChoice
from coterie.generate.sampling.rule import Chosen, Rule
from coterie.model import Decoder
from coterie.model.context import ForwardContext, RunBlock
from coterie.model.geometry import UnevenRows

MOST = 64
"""The most tokens that are chosen before the host looks at them."""
_NOTICED = 0.05  # seconds between pieces of text
_ROWS = 64

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs a function a few times and returns what repeats it."""


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels of a function; it runs three times, as libraries make ready at first."""
    main, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    main.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads, which fetch batches say, may go on asking for memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class RecordedPass:
    """Decodes one token of every row at a time; other calls are left to the next pass.

    Args:
        notify: told why steps cannot be recorded, where that is so.
        blocks: computes blocks; None: they are called.
        record: how steps are recorded.
    """

    def __init__(
        self,
        decoder: Decoder,
        notify: Callable[[str], None] | None = None,
        blocks: RunBlock | None = None,
        record: Record = cuda_graph,
    ) -> None:
        self._decoder = weakref.ref(decoder)  # who keeps a pass need not keep the model
        self._notify = notify or (lambda sentence: None)
        self._blocks, self._record = blocks, record
        position = decoder.position
        bounds = [each for each in (position.limit, position.stable) if each is not None]
        self._limit = min(bounds, default=None)
        self._steps: dict[tuple[int, ...], _Recorded] = {}
        self._seconds: dict[int, float] = {}  # of a step of so many rows
        self._reason: str | None = None

    def refuses(self, call: Call) -> str | None:
        reason = self._reason or refusal(call)
        if reason is None and call.tokens.shape[0] > _ROWS:
            return f"at most {_ROWS} rows are recorded"
        if reason is None and call.cache is not None and self._left(call.cache) < 1:
            return "the positions that the model knows are used up"
        return reason

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        cache, decoder = call.cache, self._decoder()
        assert cache is not None
        assert decoder is not None
        step = self._recorded(call, 1, None)
        if step is None:
            return EagerPass(decoder).read(call)
        step.begin(call.tokens, cache)
        step.replay()
        cache.advance(call.tokens)
        return step.logits[:, None].clone()

    def steps(self, call: Call, rules: Sequence[Rule], most: int) -> list[Chosen] | None:
        cache, rows = call.cache, call.tokens.shape[0]
        assert cache is not None
        if any(rule.made < rule.least for rule in rules) or len({x.size for x in rules}) > 1:
            return None
        longest = max(rule.left for rule in rules)
        most = min(most, MOST, self._fitting(rows), self._left(cache), longest)
        # A compiler would be called for each size of memory, so that all is made room for at once.
        room = most if self._blocks is None else min(longest, self._left(cache))
        step = self._recorded(call, room, rules)
        if step is None:
            return None
        began = time.perf_counter()
        step.begin(call.tokens, cache)
        step.follow(rules)
        for _ in range(most):
            step.replay()
        chosen = [
            _cut(tokens, logprobs, rule)
            for tokens, logprobs, rule in zip(*step.chosen(most), rules, strict=True)
        ]
        self._seconds[rows] = (time.perf_counter() - began) / most
        number = max(len(each.tokens) for each in chosen)
        cache.advance(torch.cat((call.tokens, step.tokens_read(number - 1)), 1))
        return chosen

    def _left(self, cache: CacheStack) -> int:
        return 1 << 30 if self._limit is None else self._limit - cache.length

    def _fitting(self, rows: int) -> int:
        """Return how many steps take about as long as a reader does not notice."""
        return max(int(_NOTICED / self._seconds[rows]), 1) if rows in self._seconds else 4

    def _recorded(self, call: Call, extra: int, rules: Sequence[Rule] | None) -> "_Recorded | None":
        """Return the step for this memory, recorded anew where the one before had another.

        None: it cannot be recorded, which is told once.
        """
        decoder, cache = self._decoder(), call.cache
        assert decoder is not None
        assert cache is not None
        layers = memory(cache, extra)
        greedy = rules is not None and all(rule.temperature == 0 for rule in rules)
        kind = 0 if rules is None else 1 + greedy
        size = 0 if rules is None else rules[0].size
        weights = next(decoder.parameters()).data_ptr()  # all of them move together
        places = (each.data_ptr() for pair in layers for each in pair)
        key = (kind, size, *layers[0][0].shape, hash((weights, *places)))
        if key not in self._steps:
            others = {known[-1] for known in self._steps} - {key[-1]}
            if others:  # that memory is gone
                self._steps.clear()
            made = _Recorded(decoder, call, layers, self._limit, self._blocks)
            if rules is not None:
                rows = call.tokens.shape[0]
                made.choice = DeviceChoice(rows, size, MOST, greedy, call.tokens.device)
            made.begin(call.tokens, cache)
            try:
                made.record(self._record)
            except RuntimeError as error:
                self._reason = f"its step cannot be recorded: {str(error).splitlines()[0]}"
                self._notify(f"Decoding goes on kernel by kernel, for {self._reason}.")
                return None
            self._steps[key] = made
        return self._steps[key]


def _cut(tokens: list[int], logprobs: list[float], rule: Rule) -> Chosen:
    """Return a row's tokens up to the one that ends it, by its rule or for its logits."""
    ends = {*rule.ends, -1}
    stop = next((n for n, token in enumerate(tokens, start=1) if token in ends), len(tokens))
    stop = min(stop, rule.left)
    return Chosen(tokens[:stop], logprobs[:stop])


class _Recorded:
    """One step over one memory.

    Attributes:
        choice: how the next tokens are chosen; None: logits are handed out.
        logits: of the step, where nothing is chosen.
    """

    def __init__(
        self,
        decoder: Decoder,
        call: Call,
        layers: list[tuple[Tensor, Tensor]],
        limit: int | None,
        blocks: RunBlock | None,
    ) -> None:
        device, rows = call.tokens.device, call.tokens.shape[0]
        self._decoder = weakref.ref(decoder)
        self._last = min(layers[0][0].shape[2], limit or 1 << 30) - 1
        self._tokens, self._at = (torch.zeros_like(call.tokens) for _ in range(2))
        lookback = decoder.lookback
        self._recent = call.tokens.new_zeros(rows, lookback) if lookback else None
        placed = UnevenRows((self._last,) * rows, (1,) * rows, self._at)
        past = StaticPast(layers, placed, self._recent)
        self._context = ForwardContext(cache=past, router_stats=False, run_block=blocks)
        self._made = torch.zeros(1, dtype=torch.long, device=device)
        self._chosen = torch.zeros(MOST, rows, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(MOST, rows, dtype=torch.float64, device=device)
        self._replay: Callable[[], None] | None = None
        self._held: list[Tensor] = []
        self.choice: DeviceChoice | None = None
        self.logits = torch.empty(0)

    def begin(self, tokens: Tensor, cache: CacheStack) -> None:
        """Stand where the cache ends."""
        self._tokens.copy_(tokens)
        self._at.copy_(torch.tensor(cache.lengths)[:, None])
        self._made.zero_()
        if self._recent is not None:
            known = cache.recent_tokens(self._recent.shape[1])
            assert known is not None
            self._recent.copy_(F.pad(known, (self._recent.shape[1] - known.shape[1], 0), value=-1))

    def follow(self, rules: Sequence[Rule]) -> None:
        assert self.choice is not None
        self.choice.load(rules)

    def record(self, record: Record) -> None:
        """Make the step one that can be repeated."""
        self._replay = record(self._step)
        decoder = self._decoder()
        assert decoder is not None
        self._held = decoder.position.held()  # a longer text would replace them

    def replay(self) -> None:
        assert self._replay is not None
        self._replay()

    def chosen(self, number: int) -> tuple[list[list[int]], list[list[float]]]:
        """Return the first tokens chosen, and their log-probabilities, of every row."""
        tokens, logprobs = self._chosen[:number].T.tolist(), self._logprobs[:number].T.tolist()
        return tokens, logprobs

    def tokens_read(self, number: int) -> Tensor:
        """Return those of the first tokens chosen, [B, number]."""
        return self._chosen[:number].T.clamp(min=0)

    def _step(self) -> None:
        decoder = self._decoder()
        assert decoder is not None
        logits = decoder(self._tokens, context=self._context, last=1).logits[:, 0]
        if self.choice is None:
            self.logits = logits
            return
        tokens, logprobs = self.choice(logits, self._made)
        self._chosen.index_copy_(0, self._made, tokens[None])
        self._logprobs.index_copy_(0, self._made, logprobs[None].double())
        if self._recent is not None:
            self._recent.copy_(torch.cat((self._recent[:, 1:], self._tokens), 1))
        self._tokens.copy_(tokens[:, None].clamp(min=0))
        # What is taken to make ready writes beyond the text; the last slot is not part of it.
        self._at.add_(1).clamp_(max=self._last)
        self._made.add_(1).clamp_(max=MOST - 1)
