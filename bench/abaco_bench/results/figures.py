"""Samples made into figures: spreads, ratios, and whether a goal holds. Pure."""

from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How samples lie. All in the samples' unit."""

    count: int
    p10: float
    p50: float
    p90: float
    p99: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured thing. ``limit`` is a sentence about what bounds it."""

    name: str
    unit: str
    spread: Spread
    limit: str


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Two figures compared, or one against a bound. ``goal`` is None where none is set."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal


def percentile(samples: Sequence[float], percent: float) -> float:
    """By linear interpolation between the closest ranks (as numpy does by default).

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(samples: Sequence[float]) -> Spread:
    """The spread of samples.

    Raises:
        ValueError: there are none.
    """
    return Spread(
        count=len(samples),
        p10=percentile(samples, 10),
        p50=percentile(samples, 50),
        p90=percentile(samples, 90),
        p99=percentile(samples, 99),
    )


def median(samples: Sequence[float]) -> float:
    """The middle one."""
    return percentile(samples, 50)


def times_faster(name: str, slow: Sequence[float], fast: Sequence[float], goal: float) -> Ratio:
    """How many times faster, at the medians."""
    return Ratio(name=name, value=median(slow) / median(fast), unit="x", goal=goal)


def more_than(
    name: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None, unit: str = "ms"
) -> Ratio:
    """How much more, at the median of the differences.

    The samples are of the same rounds in the same order, so that what a shared machine does to
    both of a round falls out.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(name=name, value=median(differences), unit=unit, goal=goal, at_most=True)
