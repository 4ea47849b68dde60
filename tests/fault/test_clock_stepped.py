"""A clock is an hour off, at the start or suddenly: work goes on as if it were not.

What stays wrong is the time that the wrong clock's owner writes: it is its own, and said to be.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abaco_proto import events as ev
from clocks import Clocks
from stack import Stack, eventually

HOUR = 3600
SERVICES = ("api", "projector", "scheduler", "worker")
SOON_SECONDS = 300
"""Far from an hour, and enough for a busy machine to run what takes a second."""


@pytest.fixture
def clocks(new_stack: Stack, tmp_path: Path) -> Clocks:
    made = Clocks(new_stack, tmp_path)
    restart(new_stack, SERVICES)
    return made


def restart(stack: Stack, names: tuple[str, ...]) -> None:
    before = {name: stack.pid(name) for name in names}
    for name in names:
        stack.kill(name)

    def all_new() -> bool:
        return all(stack.pid(name) not in (None, pid) for name, pid in before.items())

    eventually(all_new, what="they are started again")
    eventually(stack.ready, what="ready again")


def works(stack: Stack, actor_id: str, limited: str) -> list[str]:
    """Messages run once, in order, soon; a limit of two seconds is one of two seconds."""
    begun = time.monotonic()
    sent = [stack.send(actor_id, f"{n}") for n in range(3)]
    long = stack.send(limited, "100")
    stack.wait_complete([*sent, long], seconds=SOON_SECONDS)
    assert time.monotonic() - begun < SOON_SECONDS
    shown = stack.call("GET", f"/actors/{limited}/executions/{long}")
    assert shown["final_state"]["ended_by"] == "max_run_seconds"
    assert 1.5 < shown["runtime"] < SOON_SECONDS
    for execution_id in sent:
        shown = stack.call("GET", f"/actors/{actor_id}/executions/{execution_id}")
        assert 0 < shown["runtime"] < SOON_SECONDS
    return [*sent, long]


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_work_goes_on_whosever_clock_is_wrong(
    new_stack: Stack, clocks: Clocks, seconds: int
) -> None:
    stack = new_stack
    actor_id = stack.register("clock", "abaco-test/quick", stateless=False)
    limited = stack.register("limited", "abaco-test/numbers", max_run_seconds=2, max_workers=1)
    stack.wait_ready(actor_id)
    stack.wait_ready(limited)
    sent = works(stack, actor_id, limited)
    written: dict[str, tuple[int, int]] = {}
    for name in SERVICES:
        first = len(stack.events())
        clocks.set(name, seconds)
        sent += works(stack, actor_id, limited)
        if name == "worker":  # one that starts with a wrong clock
            restart(stack, (name,))
            sent += works(stack, actor_id, limited)
        written[name] = (first, len(stack.events()))
        clocks.set(name, 0)
        sent += works(stack, actor_id, limited)

    # Once each, in the order they were sent, and no host was ever taken for lost.
    events = stack.events()
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1] * len(sent)
    order = [
        r.event.ordinal
        for r in events
        if isinstance(r.event, ev.ExecutionAssigned) and r.event.actor_id == actor_id
    ]
    assert order == sorted(set(order))
    assert not [r for r in events if isinstance(r.event, ev.HostLost | ev.WorkerLost)]

    # A wrong clock is seen in what its owner wrote, and nowhere else.
    skew = timedelta(seconds=seconds)
    kinds: dict[str, type[ev.Event]] = {
        "api": ev.MessageReceived,
        "scheduler": ev.ExecutionAssigned,
        "worker": ev.ExecutionFinished,
    }
    for owner, kind in kinds.items():
        for wrong, (first, last) in written.items():
            times = [r.time for r in events[first:last] if isinstance(r.event, kind)]
            expected = datetime.now(UTC) + (skew if owner == wrong else timedelta())
            assert times, (owner, wrong)
            assert all(abs(t - expected) < timedelta(minutes=20) for t in times), (owner, wrong)
    for name in SERVICES:
        log = (stack.folder / "logs" / f"{name}.log").read_text(errors="replace")
        assert "Traceback" not in log, log[-3000:]
    assert stack.abaco("verify").stdout.startswith("clean: ")


def test_a_pause_is_no_hour_and_not_nothing(new_stack: Stack, clocks: Clocks) -> None:
    """An image that is not there is tried again after a pause, and again."""
    stack = new_stack
    clocks.set("worker", HOUR)
    actor_id = stack.register("missing", "abaco-test/there-is-none", min_workers=1)

    def failures() -> list[datetime]:
        mine = [r for r in stack.events() if isinstance(r.event, ev.WorkerFailed)]
        return [r.time for r in mine if r.event.actor_id == actor_id]  # type: ignore[attr-defined]

    times = eventually(_at_least(2, failures), seconds=SOON_SECONDS, what="it is tried again")
    pause = (times[1] - times[0]).total_seconds()
    assert 8 < pause < SOON_SECONDS


def _at_least(count: int, found: Callable[[], list[datetime]]) -> Callable[[], list[datetime]]:
    def check() -> list[datetime]:
        times = found()
        return times if len(times) >= count else []

    return check
