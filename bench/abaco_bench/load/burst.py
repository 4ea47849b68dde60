"""A burst: many messages at once to one actor with a few workers."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from abaco_bench.load import process_times
from abaco_bench.load.wire import connect
from abaco_bench.stack.stage import LOOK_SECONDS, Stage
from images import QUICK

CONNECTIONS = 16
SECONDS_EACH = 2.0
"""How long the bench waits for each message before it gives up."""

_numbers = count()


class Burst(NamedTuple):
    """``service_ms`` is from assigned to finished; ``cpu_ms`` is that of an execution, by part."""

    service_ms: list[float]
    rate: float
    cpu_ms: Mapping[str, float]
    kinds: Mapping[str, int]


def burst(stage: Stage, isolation: str, workers: int, messages: int) -> Burst:
    """Send the messages at once, and wait until all have finished.

    The rate is messages a second from the first request to the last end.
    """
    name = f"bench-burst-{next(_numbers)}"
    actor_id = stage.register(name, QUICK, least=workers, most=workers, isolation=isolation)
    try:
        stage.wait_workers(actor_id, workers)
        before, begun = process_times.measured(stage.services), time.time()
        asyncio.run(send(stage.url, actor_id, map(str, range(messages))))
        _wait_ends(stage, actor_id, messages)
        after = process_times.measured(stage.services)
        records = stage.subscriber.records(actor_id)
    finally:
        stage.delete(actor_id)
    ends = [record.finished_seen for record in records]
    kinds = stage.subscriber.kinds(actor_id)
    return Burst(
        service_ms=[
            (record.finished_seen - record.assigned.time.timestamp()) * 1000
            for record in records
            if record.assigned is not None
        ],
        rate=messages / (max(ends) - begun),
        cpu_ms=process_times.per_execution(before, after, messages),
        kinds={kind: kinds.count(kind) for kind in sorted(set(kinds))},
    )


async def send(url: str, actor_id: str, messages: Iterable[str]) -> None:
    """Send messages over some connections at once, and wait until all are accepted."""
    port = urlsplit(url).port
    assert port is not None
    left = iter(messages)

    async def sender() -> None:
        wire = await connect(port)
        for message in left:
            await wire.result("POST", f"/actors/{actor_id}/messages", f"message={message}")
        wire.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(sender())


def _wait_ends(stage: Stage, actor_id: str, messages: int) -> None:
    deadline = time.monotonic() + SECONDS_EACH * messages
    while (ended := len(stage.subscriber.ends(actor_id))) < messages:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{actor_id}: {ended} of {messages} messages have finished")
        time.sleep(LOOK_SECONDS)
