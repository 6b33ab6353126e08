"""Measurements of this machine, of us and of others, in turns and in one run.

Reading order: `ceilings` (what the machine can do at most), `turns` (how sides are timed),
`peers`, `decode`; `tune` (the search) and `duel` (how it measures).
"""

from coterie.benchmark.ceilings import Ceilings, measure_ceilings
from coterie.benchmark.decode import SIZES, DecodeTable, Side, benchmark_decode, standard_model
from coterie.benchmark.peers import PEERS
