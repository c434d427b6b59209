"""Break-evens: exact where times are powers, and never told where the points do not reach."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench.desk.break_even import Span, last_span, nearest_span, winning
from sparsebench.desk.layers import Interval


def speedups(values, wide=1.0):
    return [Interval(value, value / wide, value * wide) for value in values]


@given(st.floats(0.3, 3), st.floats(0.05, 0.95), st.lists(st.integers(1, 99), min_size=2, max_size=9, unique=True))
def test_a_power_law_is_crossed_exactly(power, even, percents):
    """speedup = ((1 - even) / (1 - s))^power, known anywhere: between two points the crossing is that of the law."""
    sparsities = sorted(percent / 100 for percent in percents)
    x = [-math.log1p(-s) for s in sparsities]
    found = last_span(winning(x, speedups([((1 - even) / (1 - s)) ** power for s in sparsities])).usual)
    if even > sparsities[-1] + 1e-9:
        assert found is None
    elif even < sparsities[0] - 1e-9:
        assert found is not None
        assert found.open_low
    elif found is not None:
        assert 1 - math.exp(-found.low) == pytest.approx(even, abs=1e-6)


def test_the_interval_is_that_of_the_worse_and_the_better_curve():
    x = [0.0, 1.0, 2.0]
    found = winning(x, [Interval(math.exp(t - 1), math.exp(t - 1.5), math.exp(t - 0.5)) for t in x])
    assert [spans[0].low for spans in (found.at_best, found.usual, found.surely)] == pytest.approx([0.5, 1.0, 1.5])


def test_a_loss_at_the_end_is_no_break_even_and_a_middle_that_wins_is_a_span():
    found = winning([0, 1, 2, 3], speedups([0.5, 2, 2, 0.5]))
    assert last_span(found.usual) is None
    assert found.usual == (Span(pytest.approx(0.5), pytest.approx(2.5), False, False),)


def test_unknown_bounds_cross_next_to_what_is_known():
    found = winning([0.0, 1.0], [Interval(2.0, 0.0, math.inf), Interval(2.0, 1.5, 2.5)])
    assert found.usual == found.at_best == (Span(0.0, 1.0, True, True),)
    assert found.surely[0].low == pytest.approx(1.0, abs=0.01)


def test_the_nearest_span_shares_the_axis():
    spans = (Span(0, 1, True, False), Span(2, 5, False, False))
    assert nearest_span(spans, Span(1.5, 3, False, False)) == spans[1]
    assert nearest_span(spans, Span(6, 7, False, True)) is None
    assert nearest_span((), spans[0]) is None
