import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaco_bench.results.figures import Ratio, more_than, percentile, spread, times_faster

samples = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1)


def test_percentiles_lie_between_the_closest_ranks() -> None:
    found = spread([40, 10, 30, 20, 50])
    assert (found.count, found.p10, found.p50, found.p90) == (5, 14, 30, 46)
    assert found.p99 == pytest.approx(49.6)


def test_one_sample_is_all_percentiles() -> None:
    found = spread([7])
    assert (found.p10, found.p50, found.p90, found.p99) == (7, 7, 7, 7)


def test_no_samples_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread([])


@given(samples)
def test_percentiles_rise_and_stay_within_the_samples(found: list[float]) -> None:
    at = [percentile(found, p) for p in (0, 10, 50, 90, 99, 100)]
    assert at == sorted(at) or all(math.isclose(a, b) for a, b in zip(at, sorted(at), strict=True))
    assert at[0] == min(found)
    assert at[-1] == max(found)


def test_times_faster_is_slow_by_fast_at_the_medians() -> None:
    ratio = times_faster("x", [300, 330, 900], [5, 10, 11], goal=30)
    assert ratio.value == 33
    assert ratio.holds is True


def test_more_than_is_the_median_of_the_differences_of_each_round() -> None:
    # Not the difference of the medians, which would be 100.
    ratio = more_than("x", [110, 520, 230], [100, 510, 210], goal=15)
    assert ratio.value == 10
    assert ratio.holds is True


def test_more_than_needs_both_of_each_round() -> None:
    with pytest.raises(ValueError, match="zip"):
        more_than("x", [1, 2], [1], goal=None)


def test_a_goal_is_reached_at_its_value() -> None:
    def holds(value: float, *, at_most: bool) -> bool | None:
        return Ratio(name="x", value=value, unit="x", goal=30, at_most=at_most).holds

    assert [holds(v, at_most=False) for v in (29.9, 30, 31)] == [False, True, True]
    assert [holds(v, at_most=True) for v in (29.9, 30, 30.1)] == [True, True, False]


def test_without_a_goal_nothing_is_reached_or_missed() -> None:
    assert Ratio(name="x", value=1, unit="x").holds is None
