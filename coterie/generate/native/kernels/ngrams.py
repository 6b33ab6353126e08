"""The counted n-gram model beside the network; `coterie.model.heads.ngram` defines it."""

import math
from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import (
    fields_at,
    float_at,
    floats_at,
    number_at,
    word_at,
    words_at,
)

LEVEL = 6
"""Words of a level: contexts, their number, starts, left, followers, weights."""


Ngrams = namedtuple(
    "Ngrams",
    "history longest levels number vocabulary shares shares_stride logits logits_stride",
)
"""Multiplies what n-grams predict into the logits; a task is one entry, a share the number.

`history` holds for each entry the tokens that end with it, oldest first, the vocabulary's size
where there is none; `shares` is room for one number per token of the vocabulary.
"""


def _ngrams(op, numbers, part, entry, thread):
    op = fields_at(op)
    longest, size = op[1], op[4]
    history = carray(words_at(op[0] + 8 * entry * longest), longest)
    shares = carray(floats_at(op[5] + 4 * entry * op[6]), size)
    logits = carray(floats_at(op[7] + 4 * entry * op[8]), size)
    shares[:] = np.float32(1) / np.float32(size)
    context, power = 0, 1
    for level in range(op[3]):
        if level > 0:
            token = history[longest - level]
            if token >= size:
                break
            context += token * power
            power *= size
        words = carray(words_at(op[2] + 8 * LEVEL * level), LEVEL)
        low, high = 0, words[1]
        while low < high:
            middle = (low + high) // 2
            if word_at(words[0], middle) < context:
                low = middle + 1
            else:
                high = middle
        if low == words[1] or word_at(words[0], low) != context:
            break  # what follows a longer context that was seen was seen after this one
        left = float_at(words[3], low)
        for token in range(size):
            shares[token] *= left
        for at in range(word_at(words[2], low), word_at(words[2], low + 1)):
            shares[word_at(words[4], at)] += float_at(words[5], at)
    share = np.float32(number_at(numbers, 0))
    for token in range(size):
        own = np.float32(math.log(shares[token]))
        logits[token] = (np.float32(1) - share) * logits[token] + share * own


NGRAMS = Kernel(_ngrams)
