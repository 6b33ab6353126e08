"""Conversations as tokens: which of them are said by the assistant, and so are learnt.

Each turn is encoded by itself, the asking part and the answer apart, as they are when a model is
asked: no token reaches from one into the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coterie.align.packing import Text
from coterie.batch import IGNORE
from coterie.foundation.errors import DataError
from coterie.tokenizer.chat import ChatTemplate, Message
from coterie.tokenizer.interface import Tokenizer


class Part(NamedTuple):
    """A stretch of a conversation's text, and whether the assistant says it."""

    text: str
    said: bool


def parts_of(template: ChatTemplate, messages: Sequence[Message]) -> list[Part]:
    """Return the conversation in stretches that are said by the assistant or not.

    Raises:
        DataError: the assistant says nothing in it, or the template writes earlier turns otherwise
            once there are later ones.
    """
    parts, done = [], ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = template.render(messages[:number], ask=True)
        whole = template.render(messages[: number + 1])
        if not (asked.startswith(done) and whole.startswith(asked)):
            raise DataError(
                "the chat template writes earlier turns otherwise once there are later ones, so "
                "what the assistant says cannot be told apart"
            )
        parts += [Part(asked[len(done) :], False), Part(whole[len(asked) :], True)]
        done = whole
    if not parts:
        raise DataError("no message is the assistant's, so there is nothing to learn")
    return parts


def encode(
    tokenizer: Tokenizer, parts: Sequence[Part], *, everything: bool = False, ends: bool = True
) -> Text:
    """Return a conversation's tokens, of which those that the assistant says are targets.

    The last turn ends with a token that ends texts, put there if the template did not.

    Args:
        everything: whether all turns are targets.
        ends: whether the last turn ends; else it may go on.
    """
    tokens: list[int] = []
    said: list[bool] = []
    found: list[int] = []
    for part in parts:
        found = tokenizer.encode(part.text)
        begin = tokenizer.begin_of_text
        if not tokens and (not found or (begin is not None and found[0] != begin)):
            found = [tokenizer.start_of_text, *found]
        tokens += found
        said += [part.said or everything] * len(found)
    if ends and not tokenizer.ends & set(found):
        tokens.append(tokenizer.named_end)
        said.append(True)
    read = np.array(tokens, dtype=np.int64)
    targets = np.where(said, read, IGNORE)[1:]
    return Text(read[:-1], targets)
