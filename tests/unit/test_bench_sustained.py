"""The search for the best level of a side."""

from itertools import count

from abaco_bench.load import sustained


def test_the_best_level_is_the_one_with_the_highest_rate() -> None:
    rates = {2: 5.0, 3: 6.0, 4: 5.5}
    assert sustained.best([2, 3, 4], rates.__getitem__) == (3, rates)


def test_a_machine_that_slows_down_evenly_hits_all_levels_alike() -> None:
    looks = count()
    true = {2: 5.0, 3: 5.2, 4: 5.1}
    level, rates = sustained.best([2, 3, 4], lambda level: true[level] - 0.3 * next(looks))
    assert level == 3
    assert rates[3] - rates[2] > 0
    assert rates[3] - rates[4] > 0
