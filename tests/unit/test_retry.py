"""Calls are repeated until the service is available, and each outage is logged once."""

import logging
from collections.abc import Awaitable, Callable

import pytest

from abaco_jetstream.retry import Backoff, Outage, every, retry_until_available
from abaco_proto.errors import Conflict, Unavailable

QUICK = every(0.001)
LINES = ["Postgres is unavailable (refused); retrying", "Postgres is available again"]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def outage(lines: list[str]) -> Outage:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log = logging.Logger("test")  # noqa: LOG001 - one that nobody else has
    log.addHandler(Lines())
    return Outage("Postgres", log=log)


def failing(times: int) -> Callable[[], Awaitable[int]]:
    """An operation that fails so often, and then returns how often it was called."""
    calls = 0

    async def operation() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise Unavailable("refused")
        return calls

    return operation


async def test_an_outage_is_logged_once_with_its_cause(outage: Outage, lines: list[str]) -> None:
    assert await retry_until_available(failing(3), outage, backoff=QUICK) == 4
    assert await retry_until_available(failing(0), outage, backoff=QUICK) == 1
    assert lines == LINES


async def test_each_outage_is_logged(outage: Outage, lines: list[str]) -> None:
    for _ in range(2):
        await retry_until_available(failing(1), outage, backoff=QUICK)
    assert lines == 2 * LINES


async def test_the_last_error_is_raised_at_the_timeout(outage: Outage) -> None:
    with pytest.raises(Unavailable, match="refused"):
        await retry_until_available(failing(10**9), outage, backoff=QUICK, timeout_seconds=0.02)


async def test_other_errors_are_not_retried(outage: Outage) -> None:
    async def operation() -> None:
        raise Conflict

    with pytest.raises(Conflict):
        await retry_until_available(operation, outage, backoff=QUICK)


def test_pauses_grow_to_their_maximum() -> None:
    pauses = Backoff(first_seconds=1, max_seconds=5).pauses()
    assert [next(pauses) for _ in range(5)] == [1, 2, 4, 5, 5]
