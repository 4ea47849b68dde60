"""A long history, quickly: actors that take turns, each execution through all its events.

The events are what a busy system writes: five a message (received, assigned, started, finished,
and the state that every tenth run leaves), the runs of some hundred executions interleaved.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from abaco_bench.stack.run_events import IMAGE, run_finished, run_started, worker_ready
from abaco_jetstream import Connection
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Draft, draft, encode, to_headers
from abaco_proto.names import event_subject

TENANT = "default"
T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT_ONCE = 300
IN_FLIGHT = 512


def history(events: int, actors: int, *, min_workers: int = 2) -> Iterator[Draft]:
    """The drafts of ``events`` events of ``actors`` actors (fewer when there is no room).

    Each actor has one worker, whatever ``min_workers`` it is registered with.
    """
    actors = min(actors, events // 10)
    for n, event in enumerate(_events(actors, min_workers), 1):
        at = T0 + timedelta(milliseconds=n)
        yield draft(event, tenant=TENANT, time=at, causation_id=f"req-{n}", position=n)
        if n == events:
            return


def _events(actors: int, min_workers: int) -> Iterator[ev.Event]:
    yield ev.HostJoined(host_id="h1", capacity=actors)
    for n in range(actors):
        yield from _actor(names.actor_id("bench", n), min_workers)
    running: deque[Iterator[ev.Event]] = deque()
    ordinal = number = 0
    while True:
        while len(running) < min(AT_ONCE, actors):
            running.append(_run(names.actor_id("bench", number), ordinal))
            number = (number + 1) % actors
            ordinal += number == 0
        one = running.popleft()
        event = next(one, None)
        if event is not None:
            running.append(one)
            yield event


def _actor(actor_id: str, min_workers: int) -> Iterator[ev.Event]:
    definition = ev.Definition(
        name=names.actor_name(actor_id), image=IMAGE, min_workers=min_workers
    )
    worker_ids: dict[str, Any] = {
        "actor_id": actor_id,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
    }
    yield ev.ActorRegistered(actor_id=actor_id, definition=definition)
    yield ev.WorkerRequested(**worker_ids, revision=1, actor_sequence=1, reason="below min_workers")
    yield worker_ready(worker_ids)


def _run(actor_id: str, ordinal: int) -> Iterator[ev.Event]:
    own: dict[str, Any] = {
        "actor_id": actor_id,
        "execution_id": names.execution_id(actor_id, ordinal),
    }
    worker_ids: dict[str, Any] = {
        **own,
        "attempt": 1,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
    }
    yield ev.MessageReceived(**own, ordinal=ordinal, message="execute yourself")
    yield ev.ExecutionAssigned(**worker_ids, ordinal=ordinal, message_sequence=2, actor_sequence=1)
    yield run_started(worker_ids)
    if ordinal % 10 == 9:
        yield ev.ActorStateSet(actor_id=actor_id, state={"count": ordinal}, version=ordinal)
    yield run_finished(worker_ids)


async def write(connection: Connection, drafts: Iterator[Draft]) -> int:
    """Append them in order, many in flight, and return how many they were."""
    jetstream, count = connection.jetstream, 0
    acks: deque[asyncio.Future[Any]] = deque()
    for drafted in drafts:
        subject = event_subject(drafted.tenant, drafted.event)
        body, headers = encode(drafted.event), to_headers(drafted)
        acks.append(await jetstream.publish_async(subject, body, headers=dict(headers)))
        count += 1
        if len(acks) >= IN_FLIGHT:
            await acks.popleft()
    await asyncio.gather(*acks)
    return count
