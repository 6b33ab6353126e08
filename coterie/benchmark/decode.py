"""Tokens per second of greedy decoding, ours and others', beside what the machine's memory allows.

All sides decode the same prompts with the same weights, in turns after a warm-up. What bounds one
stream is reading the active weights once per token; with several rows each expert that any of them
chose is read once.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.benchmark.ceilings import Ceilings
from coterie.benchmark.turns import Timing, Way, in_turns, spread
from coterie.foundation.errors import UserError, nearest
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.passes import NativePass
from coterie.model import Decoder, DecoderSettings, count
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN

_MOST_TEXTS = 1024

SIZES = {
    "2M": (2, 256, 2048),
    "17M": (4, 512, 8192),
    "29M": (8, 512, 8192),
    "98M": (12, 768, 16384),
}
"""Layers, width and vocabulary of the mixtures to measure without a run, by active parameters."""


@dataclass(frozen=True)
class Side:
    """Who decodes.

    Attributes:
        name: in the table.
        way: returns what decodes so many tokens after each prompt; None: it cannot.
    """

    name: str
    way: Callable[[Int[Tensor, "B T"], int], Way | None]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: whose it is.
        batch: texts decoded together.
        rate: tokens per second of all of them, after the first, median.
        first: seconds until the first token, median.
        of_bound: the rate as a share of what memory allows one stream; None for several.
        slower: how many times faster the first side is: median, smallest and largest ratio.
        same: tokens of the first text, from its start, that equal the first side's.
    """

    name: str
    batch: int
    rate: float
    first: float
    of_bound: float | None
    slower: tuple[float, float, float]
    same: int


@dataclass(frozen=True)
class DecodeTable:
    """What was measured.

    Attributes:
        parameters: of the model.
        active: that are read for one token.
        prompt: tokens before.
        tokens: decoded for each text.
        rounds: of turns.
        ceilings: of the machine, in this run.
        bound: tokens per second of one stream of float32 weights that reading allows.
        rows: the figures.
    """

    parameters: int
    active: int
    prompt: int
    tokens: int
    rounds: int
    ceilings: Ceilings
    bound: float
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def standard_model(size: str) -> tuple[Decoder, Tokenizer]:
    """Return an untrained mixture, top 2 of 8 experts, and a tokenizer for its vocabulary.

    Raises:
        UserError: there is no such size.
    """
    if size not in SIZES:
        raise UserError(f"There is no size “{size}”; {nearest(size, SIZES)}")
    layers, width, vocabulary = SIZES[size]
    settings = DecoderSettings.model_validate({
        "layers": layers, "width": width, "context": 2048, "vocab_size": vocabulary,
        "attention": {"kind": "grouped", "heads": width // 64, "kv_heads": width // 128},
        "feedforward": {
            "kind": "moe", "experts_per_token": 2,
            "experts": [{"count": 8, "mlp": {"kind": "gated", "width": width * 3 // 2}}],
        },
        "norm": {"kind": "rms", "epsilon": 1e-5}, "head": {"tied": False},
    })  # fmt: skip
    decoder = settings.build(torch.Generator().manual_seed(0)).eval()
    return decoder, stand_in(vocabulary)


def stand_in(vocabulary: int) -> Tokenizer:
    """Return a tokenizer of a given vocabulary, for models that come without one."""
    alphabet = "".join(chr(0x4E00 + number) for number in range(vocabulary - 2))
    return CharacterTokenizer(alphabet, [END_OF_TEXT, UNKNOWN])


def our_side(decoder: Decoder, tokenizer: Tokenizer, sampling: SamplingSettings) -> Side:
    """Return our engine, decoding greedily with these settings.

    Where `compute` is auto, kernels of our own are taken wherever they serve the model, however
    short the texts of the benchmark are.
    """
    if sampling.compute == "auto":
        serves = NativePass(decoder).reason is None
        sampling = sampling.model_copy(update={"compute": "native" if serves else "torch"})
    engine = Engine(decoder, tokenizer, max_batch=_MOST_TEXTS)

    def way(prompts: Tensor, tokens: int) -> Way:
        changes = {"temperature": 0, "max_tokens": tokens, "min_tokens": tokens, "stop": ()}
        settings = sampling.model_copy(update=changes)

        def decode() -> Timing:
            written, times = [], []
            begin = time.perf_counter()
            requests = [Request(row, settings) for row in prompts.tolist()]
            left = len(requests)
            for request, piece in engine.run(requests):
                if piece.error is not None:
                    raise piece.error
                if request is requests[0]:
                    written.append(piece.token)
                left -= 1
                if left == 0:  # every row has one more
                    times.append(time.perf_counter())
                    left = len(requests)
            return Timing.of(begin, times, written)

        return decode

    return Side(f"ours, {sampling.compute}", way)


def benchmark_decode(
    decoder: Decoder,
    sides: Sequence[Side],
    ceilings: Ceilings,
    *,
    batches: Sequence[int] = (1,),
    prompt: int = 32,
    tokens: int = 64,
    rounds: int = 7,
    tell: Callable[[str], None] = lambda what: None,
) -> DecodeTable:
    """Measure sides in turns.

    Args:
        sides: ours first.
        batches: how many texts to decode together.
        prompt: tokens before; random ones.

    Raises:
        UserError: prompt and tokens do not fit into the model's context.
    """
    context = decoder.settings.context
    if prompt + tokens > context:
        raise UserError(
            f"{prompt} tokens of prompt and {tokens} to decode do not fit into the model's context "
            f"of {context:,}.",
            hint="Lower --prompt or --tokens.",
        )
    if tokens < 2:
        raise UserError("At least 2 tokens must be decoded, for the first is timed apart.")
    counts = count(decoder.settings)
    bound = ceilings.read / (4 * counts.active_parameters)
    rows: list[Row] = []
    for batch in batches:
        generator = torch.Generator().manual_seed(batch)
        vocabulary = decoder.settings.known_vocab_size()
        prompts = torch.randint(0, vocabulary - 2, (batch, prompt), generator=generator)
        ways = {side.name: way for side in sides if (way := side.way(prompts, tokens))}
        tell(f"batch of {batch}: {', '.join(ways)}")
        timings = in_turns(ways, rounds)
        rows += _rows(timings, batch, bound)
    return DecodeTable(
        parameters=counts.parameters, active=counts.active_parameters, prompt=prompt,
        tokens=tokens, rounds=rounds, ceilings=ceilings, bound=bound, rows=tuple(rows),
    )  # fmt: skip


def _rows(timings: Mapping[str, list[Timing]], batch: int, bound: float) -> list[Row]:
    ours = next(iter(timings.values()))
    rows = []
    for name, theirs in timings.items():
        rate = batch * statistics.median(each.steps / each.rest for each in theirs)
        ratios = [b.rest / a.rest for a, b in zip(ours, theirs, strict=True)]
        pairs = zip(ours[0].tokens, theirs[0].tokens, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), ours[0].steps + 1)
        rows.append(
            Row(
                name, batch, rate, statistics.median(each.first for each in theirs),
                rate / bound if batch == 1 else None, spread(ratios), same,
            )
        )  # fmt: skip
    return rows
