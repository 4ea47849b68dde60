"""Folds a batch of events: takes the states before it, returns the states after it.

The fold itself is that of ``abaco_proto``. The states that a batch names are loaded before and
written after it. A purge or a deletion ends everything that waits, perhaps a million rows: the
loaded executions are folded, and the rest is a :class:`BulkUpdate`, one statement. The two never
overlap: a bulk update excludes the loaded executions, and no other row has an event in the batch.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto import execution
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold, States
from abaco_proto.state_keys import ActorKey, ExecutionKey, SubscriptionKey

MAX_ORDINAL = 2**63 - 1
SUBSCRIBING = (ev.ActorSubscribed, ev.ActorUnsubscribed)


class Subscription(msgspec.Struct, frozen=True):
    """One row of the table ``subscriptions``."""

    event_pattern: str
    subscribed_at: datetime


class BulkUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Ends all waiting executions up to an ordinal, except ``excluded_ordinals``."""

    key: ActorKey
    up_to_ordinal: int
    excluded_ordinals: list[int]
    status: ExecutionStatus
    status_message: str
    finished_at: datetime
    sequence: int


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch changed: states, subscriptions (None: removed) and bulk updates to write.

    ``inserted`` are the executions that no row holds yet.
    """

    states: States
    inserted: set[ExecutionKey]
    subscriptions: dict[SubscriptionKey, Subscription | None]
    bulk_updates: list[BulkUpdate]
    unrecognized: list[Recorded]


def fold(loaded: States, batch: Sequence[Recorded]) -> Changes:
    """Fold ``batch`` onto ``loaded``, which must hold all states of ``state_keys(batch)``."""
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
        inserted=states.executions.keys() - loaded.executions.keys(),
        subscriptions=subscriptions,
        bulk_updates=[
            _bulk_update(folding, key, recorded) for key, recorded in folding.bulk_updates
        ],
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


def _bulk_update(folding: Fold, key: ActorKey, recorded: Recorded) -> BulkUpdate:
    """Return the bulk update of an event: it ends all waiting executions as the fold ends one."""
    last = getattr(recorded.event, "up_to_ordinal", MAX_ORDINAL)
    waiting = Execution(actor_id=key[1], ordinal=last, status=ExecutionStatus.SUBMITTED)
    ended = execution.evolve(waiting, recorded)
    return BulkUpdate(
        key=key,
        up_to_ordinal=min(last, MAX_ORDINAL),
        excluded_ordinals=[
            ordinal for *owner, ordinal in folding.executions if tuple(owner) == key
        ],
        status=ended.status,
        status_message=ended.status_message,
        finished_at=recorded.time,
        sequence=recorded.sequence,
    )
