"""Two schedulers and two hosts: one of each is killed and never comes back. All work ends.

The log is on three servers. The read models are away: nothing of this needs them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import images
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.names import all_events_filter
from api_stage import Api, Process
from compose_stack import containers
from deadlines import LIMIT_SECONDS
from nats_cluster import Cluster, running_cluster

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/abaco"
HOSTS = ("doomed", "heir")
MESSAGES = 8


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


class Places:
    """An API, two schedulers and two hosts that share this machine's engine."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        """Nothing runs yet."""
        everyone = {"nats_url": nats_url, "nats_replicas": 3}
        self.api = Api(folder, nats_url, NO_DATABASE, nats_replicas=3)
        self.schedulers = [
            Process("abaco_scheduler", folder, **everyone, host_timeout_seconds=3) for _ in HOSTS
        ]
        self.workers = {
            host_id: Process(
                "abaco_worker",
                folder,
                **everyone,
                host_id=host_id,
                host_capacity=4,
                worker_dir=folder / host_id,
                network_mode="none",
            )
            for host_id in HOSTS
        }

    @property
    def all(self) -> list[Process]:
        return [self.api, *self.schedulers, *self.workers.values()]


@pytest.fixture
def places(test_images: None, tmp_path: Path, cluster: Cluster) -> Iterator[Places]:
    made = Places(tmp_path, cluster.url)
    try:
        for process in made.all:
            process.start()
        yield made
    finally:
        for process in made.all:
            process.kill()
        for host_id in HOSTS:
            for container in containers(f"abaco.host_id={host_id}"):
                container.remove(force=True)


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[JetStreamEventLog, None]:
    connection = Connection(url, name="test", replicas=3)
    await connection.open()
    try:
        yield JetStreamEventLog(connection)
    finally:
        await connection.close()


async def events(log: JetStreamEventLog) -> list[ev.Event]:
    return [r.event async for batch in log.read([all_events_filter()]) for r in batch]


async def hosts(log: JetStreamEventLog) -> set[str]:
    """The hosts that have joined."""
    return {e.host_id for e in await events(log) if isinstance(e, ev.HostJoined)}


async def hosts_at_work(log: JetStreamEventLog) -> set[str]:
    """The hosts that have begun with a message and have not ended it."""
    known = await events(log)
    ended = {e.execution_id for e in known if isinstance(e, ev.ExecutionFinished)}
    begun = {
        e.worker_id
        for e in known
        if isinstance(e, ev.ExecutionStarted) and e.execution_id not in ended
    }
    return {e.host_id for e in known if isinstance(e, ev.WorkerRequested) and e.worker_id in begun}


def finished(known: list[ev.Event]) -> dict[str, int]:
    """How often each execution is reported finished."""
    return Counter(e.execution_id for e in known if isinstance(e, ev.ExecutionFinished))


async def test_all_executions_end_on_the_other_host(places: Places, cluster: Cluster) -> None:
    async with reading(cluster.url) as log, httpx.AsyncClient(base_url=places.api.url) as client:
        async with asyncio.timeout(LIMIT_SECONDS):
            while await hosts(log) != {*HOSTS}:
                await asyncio.sleep(0.05)
        workers = {"min_workers": 4, "max_workers": 4}
        body = {"name": "last", "image": images.SLOW, **workers}
        assert (await client.post("/actors", json=body)).status_code == 201
        sent = [await send(client, n) for n in range(MESSAGES)]
        async with asyncio.timeout(LIMIT_SECONDS):
            while await hosts_at_work(log) != {*HOSTS}:
                await asyncio.sleep(0.05)
        places.schedulers[0].kill()
        places.workers["doomed"].kill()
        sent += [await send(client, n) for n in range(MESSAGES, MESSAGES + 4)]
        async with asyncio.timeout(LIMIT_SECONDS):
            while {*finished(known := await events(log))} != {*sent}:
                await asyncio.sleep(0.1)
    assert finished(known) == dict.fromkeys(sent, 1)
    assert any(isinstance(e, ev.HostLost) and e.host_id == "doomed" for e in known)
    assert not any(isinstance(e, ev.ExecutionAbandoned) for e in known)


async def send(client: httpx.AsyncClient, number: int) -> str:
    answer = await client.post("/actors/last_0/messages", json={"message": f"{number}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["execution_id"])
