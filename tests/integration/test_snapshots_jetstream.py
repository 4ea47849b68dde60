"""The contract of snapshots, on a real JetStream; and a scheduler that begins with one."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamSnapshots, NatsHeartbeats
from abaco_proto import events as ev
from abaco_proto.envelope import draft
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import history_filter
from abaco_scheduler.app.code_digest import code_digest
from abaco_scheduler.app.snapshot_manager import SnapshotManager
from abaco_scheduler.domain.cluster import Cluster, apply_event
from api_stage import Process, running
from contract.snapshots_suite import SnapshotsSuite
from deadlines import LIMIT_SECONDS
from servers import NatsServer


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_server.url, name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
def snapshots(connection: Connection) -> JetStreamSnapshots:
    return JetStreamSnapshots(connection)


class TestJetStreamSnapshots(SnapshotsSuite):
    pass


async def store_snapshot(connection: Connection, count: int) -> None:
    """Actors of which the last one is in the log only, and a snapshot of those before."""
    log, cluster = JetStreamEventLog(connection), Cluster()
    manager = SnapshotManager(
        JetStreamSnapshots(connection), log, code_digest(), interval_events=count - 1
    )
    storing = asyncio.create_task(manager.run())
    for number in range(count):
        event = ev.ActorRegistered(actor_id=f"foo_{number}", definition=b.definition(min_workers=1))
        event_draft = draft(event, tenant="default", time=b.T0, causation_id="req-1")
        recorded = await log.at(await log.append(event_draft))
        assert recorded is not None
        apply_event(cluster, recorded)
        manager.take_if_due(cluster, recorded, b.T0)
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await manager.load(b.T0)).sequence != count - 1:
            await asyncio.sleep(0.02)
    storing.cancel()


async def test_a_scheduler_begins_with_a_snapshot_and_goes_on(
    connection: Connection, nats_server: NatsServer, tmp_path: Path
) -> None:
    await store_snapshot(connection, 5)
    scheduler = Process("abaco_scheduler", tmp_path, nats_url=nats_server.url)
    log, heartbeats = JetStreamEventLog(connection), NatsHeartbeats(connection)
    with running(scheduler):
        async with asyncio.timeout(LIMIT_SECONDS):
            for actor_id in ("foo_0", "foo_4"):  # one from the snapshot, and the one behind it
                history = history_filter("default", actor_id)
                while not isinstance((await log.last(history)).event, ev.WorkerRequested):  # type: ignore[union-attr]
                    await heartbeats.send(Heartbeat(host_id="h1", capacity=9))
                    await asyncio.sleep(0.05)
    assert "begins with the snapshot of event 4" in scheduler.log
