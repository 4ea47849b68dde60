"""The parts of the adapter on NATS that need no server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.connection.addresses import addresses, credentials, inbox_prefix
from abaco_jetstream.ports import Batch
from abaco_proto import settings
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Malformed
from abaco_proto.names import inbox_filter
from abaco_scheduler.scheduler_settings import SchedulerSettings

ONE = "nats://scheduler:pw%40@n1:4222"
THREE = f"{ONE}, nats://n2:4222,nats://n3:4222"
INBOX = inbox_filter("default", "foo_0")


def test_a_cluster_is_its_addresses() -> None:
    assert addresses(ONE) == [ONE]
    assert addresses(THREE) == [ONE, "nats://n2:4222", "nats://n3:4222"]


def test_who_we_are_holds_for_all_servers() -> None:
    assert credentials(THREE) == ("scheduler", "pw@")
    assert inbox_prefix(THREE) == "_INBOX_scheduler"
    assert credentials("nats://n1:4222") == (None, None)


@pytest.mark.parametrize("url", [ONE, THREE, "tls://n1,tls://n2"])
def test_addresses_that_can_be_set(url: str) -> None:
    assert settings.read(SchedulerSettings, {"ABACO_NATS_URL": url}).nats_url == url


@pytest.mark.parametrize(
    "url", ["n1:4222", "nats://n1,n2", "nats://n1,", "nats://n1 nats://n2", ",nats://n1"]
)
def test_addresses_that_cannot_be_set(url: str) -> None:
    with pytest.raises(Malformed, match="ABACO_NATS_URL"):
        settings.read(SchedulerSettings, {"ABACO_NATS_URL": url})


@pytest.mark.parametrize("count", ["0", "2", "4", "7", "three"])
def test_a_number_of_replicas_that_gives_no_majority_is_refused(count: str) -> None:
    with pytest.raises(Malformed, match="ABACO_NATS_REPLICAS"):
        settings.read(SchedulerSettings, {"ABACO_NATS_REPLICAS": count})


class Connected(Connection):
    """As if it were."""

    connected = True


@pytest.mark.parametrize("cancelled_before", [False, True])
async def test_an_answer_does_not_swallow_a_cancellation(*, cancelled_before: bool) -> None:
    """What cleans up as it ends may ask, too, and more than once."""
    connection = Connected("nats://127.0.0.1:9", name="test")
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def call() -> int:
        begun.set()
        return await asyncio.wait_for(answer, 5)

    async def ask() -> int:
        if cancelled_before:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return await connection.call(call)

    asking = asyncio.create_task(ask())
    await begun.wait()
    answer.set_result(1)
    if cancelled_before:
        assert await asking == 1
    else:
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


class LaggingLog(JetStreamEventLog):
    """The leader has three events; the replica that is followed has had one for a while."""

    def __init__(self) -> None:
        super().__init__(Connection("nats://127.0.0.1:9", name="test"))
        self._events = [b.record(b.received(n), n + 1) for n in range(3)]

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        return self._events[-1]

    async def follow(self, *_: object, **__: object) -> AsyncGenerator[Batch, None]:
        yield Batch(events=self._events[:1], pending=0)
        yield Batch(events=self._events[1:], pending=0)
        raise AssertionError("the end was passed")


async def test_a_history_is_whole_though_a_replica_thinks_it_is_at_its_end() -> None:
    batches = [batch async for batch in LaggingLog().read([INBOX])]
    assert [recorded.sequence for batch in batches for recorded in batch] == [1, 2, 3]
