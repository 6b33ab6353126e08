"""Processes that encode give what this one gives, and tell when they end."""

from __future__ import annotations

import numpy as np
import pytest

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.workers import TokenizerProcess, count_tokens

TEXTS = ["the quality of mercy", "ünï 你好 <|endoftext|>", "", "half \ud800 pair", "x" * 300_000]


def test_a_process_gives_the_same_numbers_and_says_when_it_ended():
    tokenizer = Characters().build(["the qu"])
    with TokenizerProcess(tokenizer) as process:
        for texts in (TEXTS, TEXTS[:1], []):
            found = process.encode(texts)
            wanted = [each for text in texts for each in count_tokens([text], tokenizer)]
            assert [each[1:] for each in found] == [each[1:] for each in wanted]
            for ours, theirs in zip(found, wanted, strict=True):
                assert np.array_equal(ours.tokens, theirs.tokens)
        with pytest.raises(TokenizerError, match=r"failed: TypeError"):
            process.encode([None])
        assert len(process.encode(["on"])) == 1
        process._process.kill()
        with pytest.raises(TokenizerError, match="has ended") as caught:
            process.encode(TEXTS)
        assert "--processes 1" in caught.value.hint
