"""The choice of tokens by rules, in operations of fixed shape, so that a device need not wait.

It is what `Sampler` does for texts whose choice depends on nothing but the logits and a number of
their random stream; a test holds both against each other. Sums are made in another order, so a draw
may differ where its point lies within rounding of the border between two tokens.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.sampling.drawing import at_key
from coterie.generate.sampling.rule import Rule


class DeviceChoice:
    """Chooses the next token of each row; what the rules say lies in tensors that stay in place.

    Args:
        size: tokens of the tokenizer.
        most: tokens that are chosen before the rules are given anew.
        greedy: whether every row takes its likeliest token, which saves sorting.
    """

    def __init__(self, rows: int, size: int, most: int, greedy: bool, device: torch.device) -> None:
        self._size, self._greedy = size, greedy
        self._barred = torch.zeros(rows, size, dtype=torch.bool, device=device)
        self._numbers = torch.zeros(4, rows, 1, device=device)
        self._points = torch.zeros(most, rows, dtype=torch.float64, device=device)

    def load(self, rules: Sequence[Rule]) -> None:
        """Follow these rules from now on, one for each row."""
        rows = [row for row, rule in enumerate(rules) if rule.banned >= 0]
        self._barred.zero_()
        if rows:
            self._barred[rows, [rules[row].banned for row in rows]] = True
        if self._greedy:
            return
        numbers = [
            [rule.temperature or 1.0 for rule in rules],
            # The likeliest alone is what is left for a row that takes it.
            [1 if rule.temperature == 0 else rule.top_k or self._size for rule in rules],
            [rule.top_p if rule.top_p < 1 else math.inf for rule in rules],
            [math.log(rule.min_p) if rule.min_p > 0 else -math.inf for rule in rules],
        ]
        self._numbers.copy_(torch.tensor(numbers)[:, :, None])
        points = [
            [at_key(rule.key, rule.made + step) for rule in rules]
            for step in range(self._points.shape[0])
        ]
        self._points.copy_(torch.tensor(points, dtype=torch.float64))

    def __call__(
        self, logits: Float[Tensor, "B V"], step: Int[Tensor, " 1"]
    ) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """Return a token of each row, −1 where logits are not finite, and its log-probability.

        Args:
            step: how many were chosen since the rules were given.
        """
        logits = logits[:, : self._size]
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        logs = logits.log_softmax(-1)
        allowed = logits.masked_fill(self._barred, -math.inf)
        token = allowed.argmax(-1) if self._greedy else self._draw(allowed, step)
        logprob = logs.gather(1, token[:, None])[:, 0]
        return token.masked_fill(logs[:, 0].isnan(), -1), logprob

    def _draw(self, allowed: Float[Tensor, "B V"], step: Int[Tensor, " 1"]) -> Int[Tensor, " B"]:
        temperature, top_k, top_p, least = self._numbers.unbind()
        ordered, tokens = (allowed / temperature).sort(stable=True, dim=-1, descending=True)
        rank = torch.arange(self._size, device=allowed.device)
        ordered = ordered.masked_fill(rank >= top_k, -math.inf)
        each = ordered.softmax(-1).double()
        before = each.cumsum(-1) - each  # what all better ones hold
        dropped = (before >= top_p) | (ordered < ordered[:, :1] + least)
        kept = ordered.masked_fill(dropped & (rank > 0), -math.inf).softmax(-1)
        weights = torch.zeros_like(kept).scatter_(1, tokens, kept)  # by their numbers again
        ends = weights.double().cumsum(-1)
        point = self._points.index_select(0, step)[0][:, None] * ends[:, -1:]
        # Rounding may put a point beyond the end: it falls on the last possible token.
        last = (weights > 0).long().mul(rank).amax(-1)
        return torch.minimum((ends <= point).sum(-1), last)
