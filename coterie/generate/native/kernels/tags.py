"""Structure embeddings: where a token stands between tags, followed from token to token.

`coterie.model.additive` defines what is followed; this is its step for one token.
"""

from collections import namedtuple

from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.embed import take_row
from coterie.generate.native.machine import fields_at, kernel, word_at, words_at

INSIDE, COUNT, NAME = range(3)
TAG, STATE = 5, 6
"""Words of a kind (opening, closing, what is followed, bound, its first row in the table), and of
what is known of one: inside, opened, named, name, sum, tokens since its opening."""
_PRIME, _MIXER = 2**31 - 1, 1_540_483_477


Tags = namedtuple(
    "Tags",
    "entries tokens rows states kinds tags powers longest table scale width out out_stride",
)
"""Adds to each entry's vector those of its states; one task follows all entries in order.

`states` [rows, kinds, 6] are brought up to date; `powers` are of the base, for each distance
from an opening tag that counts.
"""


@kernel
def follow(known, tag, token, powers, longest):
    """Bring what is known of a kind up to date; return the token's state."""
    if token == tag[0]:
        known[0], known[1], known[4], known[5] = 1, known[1] + 1, 0, 0
    else:
        if token == tag[1]:
            if known[0] > 0:
                known[2], known[3] = 1, known[4]
            known[0] = 0
        known[5] += 1
        if known[0] > 0:
            power = word_at(powers, min(known[5], longest - 1))
            known[4] = (known[4] + (token + 1) * power % _PRIME) % _PRIME
    inside = known[0]
    if tag[2] == INSIDE:
        return inside
    if tag[2] == COUNT:
        turn = (known[1] - 1) % tag[3] + 1 if known[1] > 0 else 0
        return 2 * turn + inside
    if inside > 0:
        return 1
    return known[3] * _MIXER % _PRIME % tag[3] + 2 if known[2] > 0 else 0


def _tags(op, numbers, part, item, thread):
    op = fields_at(op)
    kinds = op[4]
    for entry in range(word_at(op[0], 0)):
        token, row = word_at(op[1], entry), word_at(op[2], entry)
        for kind in range(kinds):
            known = carray(words_at(op[3] + 8 * STATE * (row * kinds + kind)), STATE)
            tag = carray(words_at(op[5] + 8 * TAG * kind), TAG)
            state = follow(known, tag, token, op[6], op[7])
            take_row(op[8], op[9], tag[4] + state, op[10], op[11] + 4 * entry * op[12], 1)


TAGS = Kernel(_tags)
