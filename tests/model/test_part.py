"""Every parameter of a part has a role."""

from __future__ import annotations

import pytest
import torch

from coterie.model import parameter_roles
from coterie.model.part import Part, owned_parameters


def test_roles_name_every_parameter_or_fail(make_decoder):
    roles = parameter_roles(make_decoder(embedding={"kind": "ngram", "rows": 7, "dim": 4},
                                         position="learned", norm="layer"))  # fmt: skip
    assert roles["embedding.table"] == "table"
    assert roles["position.weight"] == roles["embedding.weight"] == "embedding"
    assert roles["blocks.0.attention.query"] == "matrix"
    assert roles["norm.bias"] == "bias"

    class Forgetful(Part):
        def __init__(self):
            super().__init__()
            self.secret = torch.nn.Parameter(torch.zeros(1))

    with pytest.raises(TypeError, match="Forgetful does not say the role of its parameter"):
        list(owned_parameters(Forgetful()))
