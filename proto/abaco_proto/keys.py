"""Which states an event is about, by key."""

from collections.abc import Iterable

import msgspec

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.envelope import Recorded

ActorKey = tuple[str, str]
"""Tenant and actor id."""
ExecutionKey = tuple[str, str, int]
"""Tenant, actor id and ordinal."""
WorkerKey = tuple[str, str]
"""Tenant and worker id."""
RunKey = tuple[str, str, str]
"""Tenant, actor id and the execution id that a worker runs."""
SubscriptionKey = tuple[str, str, str]
"""Tenant, actor id and subscription id."""


class Keys(msgspec.Struct, frozen=True):
    """Which states a batch may change."""

    actors: set[ActorKey] = msgspec.field(default_factory=set)
    executions: set[ExecutionKey] = msgspec.field(default_factory=set)
    workers: set[WorkerKey] = msgspec.field(default_factory=set)
    runs: set[RunKey] = msgspec.field(default_factory=set)


def keys_of(batch: Iterable[Recorded]) -> Keys:
    """The keys of all states that events of the batch name."""
    keys = Keys()
    for recorded in batch:
        _collect(keys, recorded.tenant, recorded.event)
    return keys


def _collect(keys: Keys, tenant: str, event: ev.Event) -> None:
    actor_id = actor_id_of(event)
    if actor_id is None:
        return
    keys.actors.add((tenant, actor_id))
    ordinal = ordinal_of(event, actor_id)
    if ordinal is not None:
        keys.executions.add((tenant, actor_id, ordinal))
    worker_id = worker_id_of(event)
    if worker_id is not None:
        keys.workers.add((tenant, worker_id))
    if isinstance(event, ev.ExecutionAbandoned):
        keys.runs.add((tenant, actor_id, event.execution_id))


def actor_id_of(event: ev.Event) -> str | None:
    """The actor an event is about; host facts are about none."""
    return getattr(event, "actor_id", None)


def worker_id_of(event: ev.Event) -> str | None:
    """The worker an event names."""
    return getattr(event, "worker_id", None)


def ordinal_of(event: ev.Event, actor_id: str) -> int | None:
    """The place of the execution an event names; None when it names none of this actor's."""
    if isinstance(event, ev.MessageReceived):
        return event.ordinal
    execution_id: str | None = getattr(event, "execution_id", None)
    return None if execution_id is None else ids.execution_ordinal(execution_id, actor_id)
