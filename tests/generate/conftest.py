"""What several rooms of generation are tested with."""

import pytest


@pytest.fixture(scope="session")
def truncations():
    """Return settings of sampling that a rule can say, each way of leaving tokens out once."""
    return [
        {},
        {"top_k": 1},
        {"top_k": 7},
        {"top_p": 0.6},
        {"top_p": 0.99},
        {"min_p": 0.3},
        {"top_k": 20, "top_p": 0.8, "min_p": 0.05},
    ]
