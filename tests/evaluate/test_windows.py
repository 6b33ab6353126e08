"""Every token but the first is scored once, with as much past as the stride promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.evaluate.windows import windows
from coterie.foundation.errors import UserError


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 12))
def test_every_token_is_scored_once_with_enough_past(num_tokens, context, stride):
    stride = min(stride, context)
    cuts = windows(num_tokens, context, stride)
    scored = [place for cut in cuts for place in range(cut.scored, cut.stop + 1)]
    assert scored == list(range(1, num_tokens))
    for cut in cuts:
        assert cut.stop - cut.start <= context
        for place in range(cut.scored, cut.stop + 1):
            assert place - cut.start >= min(place, context - stride + 1)


def test_without_overlap_the_windows_follow_one_another():
    assert [(cut.start, cut.stop, cut.scored) for cut in windows(11, 4)] == [
        (0, 4, 1), (4, 8, 5), (8, 10, 9)
    ]  # fmt: skip


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_an_impossible_stride_is_refused(stride):
    with pytest.raises(UserError, match="between 1 and the window of 4 tokens"):
        windows(10, 4, stride)


def test_an_empty_window_is_refused():
    with pytest.raises(UserError, match="at least one token, not 0"):
        windows(10, 0)
