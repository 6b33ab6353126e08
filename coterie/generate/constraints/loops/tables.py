"""What the loops of constrained verse work on: ways through a metre, and the aim of a line.

A line is a table of the states that it may be in and what each has cost, float64 [n, 2]. A pause is
a state of its own.
"""

from typing import NamedTuple

import numpy as np

FAR = 1e9  # nats of what cannot be
SLACK = 1e-6
COARSE = 0.25  # nats of a bin
LOWEST, BINS = -3.0, 44  # of what a line may still cost, in nats; the first stands for less
LEAST = 1e-6  # the chance of what is seldom, but possible
WHOLE = 1e9  # parts of a chance: sums of whole numbers are exact


class Ways(NamedTuple):
    """Where classes of words lead.

    Attributes:
        starts: of each state and class its first way, int64 [S·K + 1].
        costs: in nats, [E].
        after: numbers of states, [E].
        ends: whether the line may end there, [E].
        order: of the states, those that are nearest to the end first, [S].
        pauses: of each state the one behind a pause, [S].
        prices: of each state what a pause costs, [S].
    """

    starts: np.ndarray
    costs: np.ndarray
    after: np.ndarray
    ends: np.ndarray
    order: np.ndarray
    pauses: np.ndarray
    prices: np.ndarray


class Aim(NamedTuple):
    """What a line is to reach.

    Attributes:
        most: what it may cost, one number [1].
        floors: of each state what it costs at least to end in one of the classes asked for, [S].
        hope: of each state and bin how likely the line ends so, float32 [S, B].
        finals: of each class how much of a text is words of it that may end the line, [K].
    """

    most: np.ndarray
    floors: np.ndarray
    hope: np.ndarray
    finals: np.ndarray


class Words(NamedTuple):
    """Tokens that begin or continue words, node by node of the tree where they lead.

    Attributes:
        tokens: their numbers, [T].
        starts: of each node its first token, [N + 1].
        first: of each node the first word below it, [N].
        after: of each the word after the last one, [N].
        parts: of each one over how often all these words are used, in parts of a chance, [N].
    """

    tokens: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    after: np.ndarray
    parts: np.ndarray


class Between(NamedTuple):
    """Tokens between words, and of each the number of where it leads."""

    tokens: np.ndarray
    at: np.ndarray
