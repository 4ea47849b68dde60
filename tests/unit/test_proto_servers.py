"""The connection to several servers, some of which do not work: over real sockets."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
import pytest

from abaco_jetstream import Connection
from abaco_jetstream.connection import connection_log, nats_connection
from abaco_proto.errors import Unavailable
from fake_nats import FakeNats, serving

SUBJECT = "abaco.event.default.foo_0.actor_registered"
DEADLINE_SECONDS = 30
"""For what takes less than a second on a machine that does nothing else."""

WAYS = ["silent", "lonely", "refused"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "FAILOVER_SECONDS", 0.2)
    monkeypatch.setattr(nats_connection, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(nats_connection, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(nats_connection, "RECONNECT_PAUSE_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def _in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "_shuffled", lambda servers: servers)


@asynccontextmanager
async def opened(*urls: str) -> AsyncGenerator[Connection, None]:
    made = Connection(",".join(urls), name="test", timeout=0.15)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await made.open()
        yield made
    finally:
        await made.close()


async def write(log: Connection) -> None:
    """As every writer does: again until it is acknowledged."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                await log.request(SUBJECT, b"{}")
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("works", [0, 1, 2])
async def test_a_process_that_starts_finds_the_server_that_works(way: str, works: int) -> None:
    fakes = [FakeNats(f"s{n}", "works" if n == works else way) for n in range(3)]
    async with serving(*fakes), opened(*(fake.url for fake in fakes)) as log:
        await write(log)
    assert fakes[works].written == [SUBJECT]


@pytest.mark.parametrize("now", ["silent", "lonely"])
@pytest.mark.parametrize("other", WAYS)
async def test_a_writer_whose_server_stops_working_finds_the_one_that_works(
    now: str, other: str
) -> None:
    first, second, third = FakeNats("a"), FakeNats("b", other), FakeNats("c")
    async with (
        serving(first, second, third),
        opened(first.url, second.url, third.url) as log,
    ):
        await write(log)
        first.way = now
        await write(log)
    assert (len(first.written), len(third.written)) == (1, 1)


@pytest.mark.parametrize("now", ["silent", "lonely"])
async def test_a_reader_finds_it_too(now: str) -> None:
    """It asks for nothing by itself: what comes from a server that is cut off is just old."""
    first, second = FakeNats("a"), FakeNats("b")
    async with serving(first, second), opened(first.url, second.url) as log:
        first.way = now
        async with asyncio.timeout(DEADLINE_SECONDS):
            while log.reconnects == 0:
                await asyncio.sleep(0.01)
        assert log.client.server_id == "b"


async def test_what_a_server_did_not_take_keeps_nobody_with_it() -> None:
    """More than the buffers of the sockets hold is on its way to a server that reads nothing."""
    first, second = FakeNats("a"), FakeNats("b")
    async with serving(first, second), opened(first.url, second.url) as log:
        first.way = "deaf"
        for _ in range(16):
            await log.client.publish(SUBJECT, bytes(1_000_000))
        await write(log)
    assert second.written


async def test_nor_when_the_library_finds_the_connection_stale() -> None:
    """As after pings without an answer; here with one server, which works again."""
    fake = FakeNats("a")
    async with serving(fake), opened(fake.url) as log:
        fake.way = "deaf"
        for _ in range(16):
            await log.client.publish(SUBJECT, bytes(1_000_000))
        await asyncio.sleep(0.05)  # the server has begun to read, and stopped
        fake.way = "works"
        await log.client._process_op_err(nats.errors.StaleConnectionError())
        await write(log)
    assert fake.written


async def test_a_server_whose_name_cannot_be_looked_up_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeNats("a")
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "dead.test":
            raise socket.gaierror(socket.EAI_AGAIN, "no answer from the name server")
        if host == "slow.test":
            await asyncio.sleep(DEADLINE_SECONDS)
        return await real(host, *args, **kwargs)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    async with serving(fake):
        urls = ("nats://dead.test:4222", "nats://slow.test:4222", fake.url)
        async with opened(*urls) as log:
            await write(log)
            fake.drop()
            await write(log)
    assert len(fake.written) == 2


async def test_all_others_are_tried_before_a_server_is_tried_again() -> None:
    fakes = [FakeNats(name) for name in "abcd"]
    async with serving(*fakes), opened(*(fake.url for fake in fakes)) as log:
        for fake in fakes[:3]:
            fake.way = "lonely"
        await write(log)
    assert [fake.connections for fake in fakes] == [1, 1, 1, 1]


class Lines(logging.Handler):
    """What is logged, at WARNING or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the connection logs, whatever other tests have made of the loggers that are there."""
    logger, handler = logging.Logger("test"), Lines()  # noqa: LOG001 - one that nobody else has
    logger.addHandler(handler)
    monkeypatch.setattr(connection_log, "logger", logger)
    return handler.lines


@pytest.mark.parametrize("code", [10047, 10023, 10028, 10002, 10005])
async def test_no_room_for_the_streams_is_logged_once_with_what_to_do(
    code: int, lines: list[str]
) -> None:
    fake = FakeNats("a")
    fake.no_room = (code, "insufficient storage resources available")
    made = Connection(fake.url, name="test", timeout=0.5)
    async with serving(fake):
        opening = asyncio.create_task(made.open())
        deadline = time.monotonic() + DEADLINE_SECONDS
        while fake.creations < 5:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        [line] = (each for each in lines if "no room" in each)
        assert f"error {code}" in line
        assert "ABACO_EVENTS" in line
        assert "max_file_store" in line
        fake.no_room = None
        async with asyncio.timeout(DEADLINE_SECONDS):
            await opening
        await made.close()
    assert len([each for each in lines if "no room" in each]) == 1
