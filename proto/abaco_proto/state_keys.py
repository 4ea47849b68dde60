"""The keys of the states that an event is about."""

from collections.abc import Iterable

import msgspec

from abaco_proto import events as ev
from abaco_proto import names
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


class StateKeys(msgspec.Struct, frozen=True):
    """The keys of the states that a batch may change."""

    actors: set[ActorKey] = msgspec.field(default_factory=set)
    executions: set[ExecutionKey] = msgspec.field(default_factory=set)
    workers: set[WorkerKey] = msgspec.field(default_factory=set)
    runs: set[RunKey] = msgspec.field(default_factory=set)


def state_keys(batch: Iterable[Recorded]) -> StateKeys:
    """The keys of all states that the events of a batch name."""
    keys = StateKeys()
    for recorded in batch:
        _collect(keys, recorded.tenant, recorded.event)
    return keys


def _collect(keys: StateKeys, tenant: str, event: ev.Event) -> None:
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
    """The actor that an event is about; None for events of hosts."""
    return getattr(event, "actor_id", None)


def worker_id_of(event: ev.Event) -> str | None:
    """The worker that an event names, or None."""
    return getattr(event, "worker_id", None)


def ordinal_of(event: ev.Event, actor_id: str) -> int | None:
    """The ordinal of the execution that an event names; None if it names none of this actor."""
    if isinstance(event, ev.MessageReceived):
        return event.ordinal
    execution_id: str | None = getattr(event, "execution_id", None)
    return None if execution_id is None else names.execution_ordinal(execution_id, actor_id)
