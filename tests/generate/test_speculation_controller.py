"""The controller: guesses go on while they pay and rest when they do not."""

import pytest

from coterie.generate.speculation import Controller


def run(steps: int, cost: float, gained: int, plain: float = 1.0) -> list[bool]:
    """Return which of the steps guess, if a step with guesses costs and gains so much."""
    controller, guessed = Controller(), []
    for _ in range(steps):
        wants = controller.wants
        guessed.append(wants)
        if wants:
            controller.note(cost, gained, guessed=True)
        else:
            controller.note(plain, 1, guessed=False)
    return guessed


def test_the_faster_of_two_steps_without_guesses_counts():
    assert run(4, 1.0, 2) == [False, False, True, True]
    controller = Controller()
    for seconds in (9.0, 1.0):  # one made room
        controller.note(seconds, 1, guessed=False)
    for _ in range(4):
        controller.note(1.5, 1, guessed=True)
    assert not controller.wants


@pytest.mark.parametrize(("cost", "gained"), [(1.5, 2), (0.9, 1), (3.0, 4)])
def test_guesses_that_pay_go_on(cost, gained):
    assert all(run(100, cost, gained)[2:])


@pytest.mark.parametrize(("cost", "gained"), [(2.5, 2), (1.2, 1)])
def test_guesses_that_do_not_pay_rest_ever_longer(cost, gained):
    guessed = run(2000, cost, gained)
    assert sum(guessed[:38]) == 4
    assert not any(guessed[6:38])
    assert sum(guessed) < 40


def test_guesses_are_tried_again():
    assert sum(run(2000, 1.2, 1)[38:]) >= 4
