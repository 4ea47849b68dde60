"""The fold of a batch of events: the states that were, in; the states that are, out.

Theory: the fold itself is proto's. The states that a batch names are loaded before it and written
after it. A purge or a deletion is about everything that waits, which may be a million rows: what
the batch has loaded is folded, and the rest is a :class:`Sweep`, one statement for the database.
The two never meet, because a sweep leaves out what the batch has loaded, and a row outside the
batch has no other event in it.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto import execution
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold, States
from abaco_proto.keys import ActorKey, ExecutionKey, SubscriptionKey

MAX_ORDINAL = 2**63 - 1
SUBSCRIBING = (ev.ActorSubscribed, ev.ActorUnsubscribed)


class Subscription(msgspec.Struct, frozen=True):
    """One row of the table ``subscriptions``."""

    event_pattern: str
    subscribed_at: datetime


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The end of all executions that wait, up to an ordinal, but for those in ``spared``."""

    key: ActorKey
    up_to_ordinal: int
    spared: list[int]
    status: ExecutionStatus
    status_message: str
    finished_at: datetime


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch changed: states to write, subscriptions to write (or remove: None), sweeps.

    ``born`` are those of the executions that no row holds yet.
    """

    states: States
    born: set[ExecutionKey]
    subscriptions: dict[SubscriptionKey, Subscription | None]
    sweeps: list[Sweep]
    unrecognized: list[Recorded]


def fold(loaded: States, batch: Sequence[Recorded]) -> Changes:
    """What ``batch`` makes of ``loaded``, which must hold all there is of ``keys_of(batch)``."""
    folding = Fold(loaded)
    subscriptions: dict[SubscriptionKey, Subscription | None] = {}
    for recorded in batch:
        if not isinstance(recorded.event, SUBSCRIBING):
            folding.apply(recorded)
            continue
        key = (recorded.tenant, recorded.event.actor_id)
        before = folding.actors.get(key)
        folding.apply(recorded)
        if folding.actors.get(key) is not before:
            subscriptions |= _subscriptions(key, recorded)
    states = folding.changed()
    return Changes(
        states=states,
        born=states.executions.keys() - loaded.executions.keys(),
        subscriptions=subscriptions,
        sweeps=[_sweep(folding, key, recorded) for key, recorded in folding.sweeping],
        unrecognized=[r for r in batch if isinstance(r.event, ev.Unrecognized)],
    )


def _subscriptions(key: ActorKey, recorded: Recorded) -> dict[SubscriptionKey, Subscription | None]:
    match recorded.event:
        case ev.ActorSubscribed() as event:
            added = Subscription(event.event_pattern, recorded.time)
            return {(*key, event.subscription_id): added}
        case ev.ActorUnsubscribed() as event:
            return {(*key, event.subscription_id): None}
    return {}


def _sweep(folding: Fold, key: ActorKey, recorded: Recorded) -> Sweep:
    """The sweep for an event: what it makes of an execution that waits, it makes of all."""
    last = getattr(recorded.event, "up_to_ordinal", MAX_ORDINAL)
    waiting = Execution(actor_id=key[1], ordinal=last, status=ExecutionStatus.SUBMITTED)
    ended = execution.evolve(waiting, recorded)
    return Sweep(
        key=key,
        up_to_ordinal=min(last, MAX_ORDINAL),
        spared=[ordinal for *owner, ordinal in folding.executions if tuple(owner) == key],
        status=ended.status,
        status_message=ended.status_message,
        finished_at=recorded.time,
    )
