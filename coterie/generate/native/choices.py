"""How the tokens of a program's rows are chosen: written down before a call, read after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from coterie.generate.native.builder import Buffer, Builder
from coterie.generate.native.kernels.choose import CHOICES, CHOOSE, ON, RECORD, WRITTEN, Choose
from coterie.generate.native.operations import MOST_ENDS, MOST_STEPS
from coterie.generate.sampling.rule import Chosen, Rule


class Choices:
    """The last stage of a program, which does nothing unless it is switched on."""

    def __init__(self, builder: Builder, logits: Buffer) -> None:
        entries, past = builder.entries, builder.past
        self.records = builder.room(entries, RECORD, dtype=torch.int64)
        choices = builder.room(entries, CHOICES, dtype=torch.float64)
        tokens = builder.room(entries, MOST_STEPS, dtype=torch.int64)
        logprobs = builder.room(entries, MOST_STEPS, dtype=torch.float64)
        fields = Choose(
            logits.address, logits.width, self.records.data_ptr(), choices.data_ptr(),
            builder.tokens.data_ptr(), builder.positions.data_ptr(),
            0 if past is None else past.data_ptr(), 0 if past is None else past.shape[1],
            tokens.data_ptr(), logprobs.data_ptr(), MOST_STEPS,
            builder.buffer(logits.width).address, builder.buffer(logits.width).address,
        )  # fmt: skip
        # NumPy's views cost a fraction of torch's.
        self._numbers, self._written = self.records.numpy(), self.records.numpy()[:, WRITTEN]
        self._choices, self._tokens, self._logprobs = (
            x.numpy() for x in (choices, tokens, logprobs)
        )
        builder.stage(builder.operation(CHOOSE, fields, 1, builder.count.data_ptr()))

    @contextmanager
    def switched_on(self, rules: Sequence[Rule], most: int) -> Iterator[None]:
        """Let tokens be chosen by these rules inside the block."""
        assert 0 < most <= MOST_STEPS
        records, choices = self._numbers, self._choices
        for entry, rule in enumerate(rules):
            assert len(rule.ends) <= MOST_ENDS
            ends = rule.ends + (0,) * (MOST_ENDS - len(rule.ends))
            key = int(np.uint64(rule.key).astype(np.int64))
            records[entry] = (
                1, rule.size, key, rule.made, 0, min(rule.left, most), rule.top_k, rule.banned,
                rule.least, len(rule.ends), *ends,
            )  # fmt: skip
            choices[entry] = rule.temperature, rule.top_p, rule.min_p
        try:
            yield
        finally:
            records[:, ON] = 0

    def chosen(self, rows: int) -> list[Chosen]:
        """Return what was chosen for the first rows."""
        counts = self._written[:rows].tolist()
        return [
            Chosen(self._tokens[row, :count].tolist(), self._logprobs[row, :count].tolist())
            for row, count in enumerate(counts)
        ]
