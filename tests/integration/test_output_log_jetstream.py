"""The output log's contract, on a real JetStream; and what only the real one can show."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from abaco_jetstream import Connection, JetStreamOutputLog
from abaco_proto import streams
from abaco_proto.errors import Unavailable
from contract.output_log_suite import EXECUTION, OutputLogSuite, output, take
from deadlines import LIMIT_SECONDS
from servers import NatsServer


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_server.url, name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
def outputs(connection: Connection) -> JetStreamOutputLog:
    return JetStreamOutputLog(connection)


class TestJetStreamOutputLog(OutputLogSuite):
    pass


async def consumers(connection: Connection) -> int:
    info = await connection.jetstream.stream_info(streams.LOGS.name)
    return info.state.consumer_count


async def test_a_follower_that_goes_leaves_no_consumer_behind(
    connection: Connection, outputs: JetStreamOutputLog
) -> None:
    await outputs.write(output(b"a"))
    await take(outputs.follow_execution(*EXECUTION), 1)
    assert await consumers(connection) == 0
    waiting = asyncio.create_task(take(outputs.follow_execution(*EXECUTION), 2))
    async with asyncio.timeout(LIMIT_SECONDS):
        while await consumers(connection) == 0:
            await asyncio.sleep(0.01)
        waiting.cancel()
        while await consumers(connection):
            await asyncio.sleep(0.01)


async def test_a_follower_outlives_the_server(
    nats_server: NatsServer, outputs: JetStreamOutputLog
) -> None:
    await outputs.write(output(b"a"))
    following = asyncio.create_task(take(outputs.follow_execution(*EXECUTION), 2))
    nats_server.kill()
    nats_server.start()
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                await outputs.write(output(b"b", 1))
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        assert [o.data for o in await following] == [b"a", b"b"]
