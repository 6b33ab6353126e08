"""Routed experts. Read in the order of a token's way: router (noise → score → select), capacity,
dispatch, compute over the bodies, combine, account; `layer` joins them, `balance` keeps experts
evenly used.
"""

from coterie.model.experts.account import LayerRouting
from coterie.model.experts.balance import Balance
from coterie.model.experts.bodies import Body, ExpertBody
from coterie.model.experts.compute import Compute, measurements
from coterie.model.experts.layer import MixtureOfExperts, MixtureOfExpertsPart
from coterie.model.experts.noise import Noise
from coterie.model.experts.pack import ExpertPack
from coterie.model.experts.router import RouterSettings
from coterie.model.experts.score import Score
from coterie.model.experts.select import Select

__all__ = [
    "Balance",
    "Body",
    "Compute",
    "ExpertBody",
    "ExpertPack",
    "LayerRouting",
    "MixtureOfExperts",
    "MixtureOfExpertsPart",
    "Noise",
    "RouterSettings",
    "Score",
    "Select",
    "measurements",
]
