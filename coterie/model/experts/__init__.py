"""Routed experts, in the order in which a token meets them: router (noise → score → select),
capacity, dispatch, kernel over the experts' MLPs, combine, router statistics; `layer` joins them,
`balance` keeps experts evenly used.
"""

from coterie.model.experts.balance import Balance
from coterie.model.experts.kernel import ExpertKernel, Kernel, measurements
from coterie.model.experts.layer import MixtureOfExperts, MixtureOfExpertsPart
from coterie.model.experts.noise import Noise
from coterie.model.experts.pack import ExpertPack
from coterie.model.experts.router_stats import RouterStats
from coterie.model.experts.score import Score
from coterie.model.experts.select import Select
