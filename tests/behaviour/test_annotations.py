"""Annotations of shapes are enforced while testing, of each kind of call once."""

import random

import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model import DecoderSettings

checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)


@checked
def rows(
    x: Float[Tensor, "B T"], y: Float[Tensor, "B T"], most: int | None = None
) -> Float[Tensor, " B"]:
    return (x + y)[:most, 0]


def test_every_shape_and_type_is_seen_however_many_came_before():
    right = torch.zeros(2, 3)
    for _ in range(3):
        assert rows(right, right).shape == (2,)
        for wrong in (torch.zeros(2, 1), right.long(), right[0], None):
            with pytest.raises(jaxtyping.TypeCheckError, match="'y'"):
                rows(right, wrong)
        with pytest.raises(jaxtyping.TypeCheckError, match="'most'"):
            rows(right, right, most="1")


def test_results_are_seen_even_where_the_arguments_were_right_before():
    right = torch.zeros(2, 3)
    assert rows(right, right, most=2).shape == (2,)
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
            rows(right, right, most=1)


def test_functions_in_functions_and_lists_are_seen():
    def make(least):
        @checked
        def total(parts: list[Float[Tensor, " n"]], names: tuple[str, ...] = ()) -> float:
            return float(sum(parts).sum()) + least

        return total

    whole = [torch.zeros(2), torch.ones(2)]
    assert [make(least)(whole) for least in (0, 1)] == [2, 3]
    for bad in ([torch.zeros(2, 2)] * 2, [None, None], (torch.zeros(2),)):
        with pytest.raises(jaxtyping.TypeCheckError, match="'parts'"):
            make(0)(bad)
    with pytest.raises(jaxtyping.TypeCheckError, match="'names'"):
        make(0)(whole, names=(1,))


def test_functions_of_equal_code_are_told_apart():
    def made(result):
        def same(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
            return x

        same.__annotations__["return"] = result
        same.__qualname__ = str(result)
        return checked(same)

    x, right, wrong = torch.zeros(2), Float[Tensor, " n"], Float[Tensor, " n 2"]
    assert made(right)(x) is x
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        made(wrong)(x)


def test_the_model_is_checked_and_the_random_numbers_of_tests_are_left_alone():
    values = {"layers": 1, "width": 8, "context": 8, "vocab_size": 11}
    decoder = DecoderSettings.model_validate(values).build()
    before = random.getstate()
    with pytest.raises(jaxtyping.TypeCheckError, match="'tokens'"):
        decoder(torch.zeros(3))
    decoder(torch.zeros(1, 3, dtype=torch.long))
    assert random.getstate() == before
