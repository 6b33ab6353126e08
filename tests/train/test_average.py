"""The moving average of the weights: beside the weights in training, and what is saved."""

import pytest
import torch

from coterie.train.average import WeightAverage, trained_name
from coterie.train.optimizer import RoleParameter


def make(values, decay=0.9):
    tensor = torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))
    return tensor, WeightAverage([RoleParameter("w", "matrix", tensor)], decay)


def test_the_average_is_that_of_its_formula():
    tensor, average = make([1.0, 2.0])
    expected = tensor.detach().clone()
    for step in range(200):
        with torch.no_grad():
            tensor.add_(step % 3 - 0.5)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * tensor.detach()
    trained = tensor.detach().clone()
    with average.swapped():
        torch.testing.assert_close(tensor.detach(), expected)
        assert torch.equal(average.trained()[trained_name("w")], trained)
    assert torch.equal(tensor.detach(), trained)


def test_the_weights_in_training_come_back_after_an_error_too():
    tensor, average = make([1.0])
    with torch.no_grad():
        tensor.fill_(5.0)
    with pytest.raises(ZeroDivisionError), average.swapped():
        assert tensor.item() == 1.0
        raise ZeroDivisionError
    assert tensor.item() == 5.0


def test_a_checkpoint_without_an_average_begins_one():
    tensor, average = make([1.0])
    with torch.no_grad():
        tensor.fill_(3.0)
    assert average.load({}) == set()
    with average.swapped():
        assert tensor.item() == 3.0
