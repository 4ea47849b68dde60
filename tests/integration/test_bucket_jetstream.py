"""The bucket's contract, on a real JetStream; and what only the real one can show."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from abaco_proto.errors import Unavailable
from abaco_proto.jetstream import Connection, JetStreamBucket
from contract.bucket_suite import DAY, BucketSuite
from deadlines import LIMIT_SECONDS
from servers import NatsServer


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_server.url, name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
def bucket(connection: Connection) -> JetStreamBucket:
    return JetStreamBucket(connection)


class TestJetStreamBucket(BucketSuite):
    pass


async def test_a_killed_server_forgets_nothing_and_keeps_time(
    nats_server: NatsServer, connection: Connection, bucket: JetStreamBucket
) -> None:
    revision = await bucket.put("kept", b"1", revision=0, seconds=DAY)
    await bucket.put("over", b"1", revision=0, seconds=1)
    nats_server.kill()
    with pytest.raises(Unavailable):
        await bucket.put("kept", b"2", revision=revision, seconds=DAY)
    nats_server.start()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not connection.connected:
            await asyncio.sleep(0.02)
        while await bucket.get("over") is not None:
            await asyncio.sleep(0.02)
    found = await bucket.get("kept")
    assert found is not None
    assert (found.revision, found.value) == (revision, b"1")
