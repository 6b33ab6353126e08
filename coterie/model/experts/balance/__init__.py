"""Balance: what keeps experts evenly used, a closed union.

A balance may hold a `selection_bias`, which the router adds to scores when it selects; it may
return a load balancing `loss` for what the router did, having `observe`d the load of each
micro-batch; and it may `update` itself from the loads of a whole optimizer step. The last is called
from outside, once per step, never in a forward pass.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.balance.auxiliary import AuxiliaryBalance
from coterie.model.experts.balance.bias import BiasBalance
from coterie.model.experts.balance.interface import BalanceInputs, BalancePart
from coterie.model.experts.balance.none import NoBalance

Balance = Annotated[
    NoBalance | AuxiliaryBalance | BiasBalance, union(NoBalance, AuxiliaryBalance, BiasBalance)
]
