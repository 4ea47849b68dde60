"""An awaited cancellation arrives, however many others are received meanwhile."""

import pytest

import builders as b
from abaco_worker.runs import cancellations
from abaco_worker.runs.cancellations import Cancellations

HALTED = ("default", "foo_0_exc_0")


def test_a_long_run_is_halted_after_many_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellations, "MAX_RECEIVED", 3)
    known = Cancellations()
    long = known.event_of(*HALTED)
    for n in range(1, 10):
        assert not known.event_of("default", f"foo_0_exc_{n}").is_set()
        known.cancel("default", f"bar_0_exc_{n}")
    known.apply(b.record(b.halt_requested(0)))
    assert long.is_set()


def test_a_halt_is_remembered_for_a_run_that_begins_later() -> None:
    known = Cancellations()
    known.apply(b.record(b.halt_requested(0)))
    known.apply(b.record(b.lost(0)))
    assert known.event_of(*HALTED).is_set()
    assert known.event_of("default", "foo_0_wkr_0").is_set()
    assert not known.event_of("other", "foo_0_exc_0").is_set()


def test_what_was_said_long_ago_and_awaits_nobody_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancellations, "MAX_RECEIVED", 3)
    known = Cancellations()
    for n in range(9):
        known.apply(b.record(b.halt_requested(n)))
    said = [known.event_of("default", f"foo_0_exc_{n}").is_set() for n in range(9)]
    assert said == [False] * 6 + [True] * 3
