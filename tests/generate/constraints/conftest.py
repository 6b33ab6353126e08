"""What tests of constraints share."""

import pytest
import torch


def _written(constraint, tokenizer, seed: int, most: int = 2000) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        logits = constraint.mask(torch.randn(tokenizer.vocab_size, generator=generator))
        assert torch.isfinite(logits).any(), tokenizer.decode(tokens)
        token = int(logits.argmax())
        if token in tokenizer.ends:
            return tokens
        tokens.append(token)
        constraint.accept(token)
    raise AssertionError(f"it never ends: {tokenizer.decode(tokens)[-200:]}")


@pytest.fixture(scope="session")
def written():
    """Return a function: tokens drawn at random from what is allowed, until the text ends."""
    return _written
