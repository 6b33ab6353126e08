"""Several processes on one run: torch's engines, put around a decoder that knows nothing of them.

In reading order: `settings` (what is divided among how many), `mesh` (who is where), `ranks` (what
a trainer asks of the others), `shard` (replicas and parts), `together` (what a step sums), `owners`
(matrices as a whole), `cut` (parameters in pieces), `expert`, `tensor`, `pipeline`.
"""

from coterie.parallel.settings import Parallel

__all__ = ["Parallel"]
