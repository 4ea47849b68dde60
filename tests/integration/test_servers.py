"""The servers under the other tests do what they say."""

from pathlib import Path

import asyncpg
import nats
import pytest

from abaco_jetstream.stream_setup import ensure_streams
from abaco_proto import streams
from disks import small_disk
from servers import NatsServer, PostgresServer


async def test_nats_keeps_its_streams_over_a_kill(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(name="s", subjects=["s.>"])
    await client.jetstream().publish("s.a", b"kept")
    await client.close()

    nats_server.kill()
    assert not nats_server.running
    nats_server.start()

    client = await nats.connect(nats_server.url)
    kept = await client.jetstream().get_msg("s", seq=1)
    assert kept.data == b"kept"
    await client.close()


async def test_nats_takes_our_streams_on_a_disk_that_is_smaller_than_their_limits(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        server = NatsServer(disk.folder)
        try:
            server.start()
            client = await nats.connect(server.url)
            await ensure_streams(client.jetstream(), 1)
            made = {info.config.name for info in await client.jetstream().streams_info()}
            assert made == {stream.name for stream in streams.ALL}
            await client.close()
        finally:
            server.kill()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_postgres_keeps_its_rows(postgres_server: PostgresServer, how: str) -> None:
    client = await asyncpg.connect(postgres_server.dsn())
    await client.execute("CREATE TABLE t (a int)")
    await client.execute("INSERT INTO t VALUES (7)")
    if how == "stop":
        await client.close()

    getattr(postgres_server, how)()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(postgres_server.dsn())
    postgres_server.start()
    client.terminate()

    client = await asyncpg.connect(postgres_server.dsn())
    assert await client.fetchval("SELECT a FROM t") == 7
    await client.close()


async def test_every_database_is_empty(postgres_dsn: str) -> None:
    client = await asyncpg.connect(postgres_dsn)
    assert await client.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await client.close()
