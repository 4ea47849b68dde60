"""Encodes states as rows, and decodes them.

Postgres takes and returns rows as JSON: one parameter per table, decoded in C at both ends.
Columns are the field names of the aggregates, so little is mapped. Most rows are executions, and
most of these are new: they are inserted with COPY.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from abaco_projector.domain.batch_fold import Changes, Subscription
from abaco_proto.actor import Actor
from abaco_proto.execution import Execution
from abaco_proto.fold import States, Totals
from abaco_proto.state_keys import ActorKey, ExecutionKey, SubscriptionKey, WorkerKey
from abaco_proto.worker import Worker


class ActorRow(Actor, frozen=True, kw_only=True):
    """A row of ``actors``; ``state`` is JSON text."""

    tenant: str
    total_executions: int
    total_ended: int
    total_complete: int
    total_error: int
    total_halted: int
    total_purged: int
    total_cpu_ns: int
    total_io_bytes: int
    total_runtime_ms: float


_actors = msgspec.json.Decoder(list[ActorRow])
_executions = msgspec.json.Decoder(list[tuple[str, Execution]])
_workers = msgspec.json.Decoder(list[tuple[str, Worker]])


def decode_states(actors: str, executions: str, workers: str) -> States:
    """Decode the answers of ``load_actors``, ``load_executions`` and ``load_workers``.

    Raises:
        msgspec.ValidationError: a row holds what no aggregate can, e.g. a time before year 1.
    """
    rows = {(row.tenant, row.actor_id): row for row in _actors.decode(actors)}
    return States(
        actors={key: _actor(row) for key, row in rows.items()},
        totals={key: _totals(row) for key, row in rows.items()},
        executions={(t, e.actor_id, e.ordinal): e for t, e in _executions.decode(executions)},
        workers={(t, w.worker_id): w for t, w in _workers.decode(workers)},
    )


def _actor(row: ActorRow) -> Actor:
    """Return the aggregate of a row. Its state stays encoded: no fold reads it."""
    fields = {name: getattr(row, name) for name in Actor.__struct_fields__}
    return Actor(**{**fields, "state": msgspec.Raw(row.state.encode())})


def _totals(row: ActorRow) -> Totals:
    return Totals(**{name: getattr(row, name) for name in Totals.__struct_fields__})


EXECUTION_COLUMNS = ("tenant", *Execution.__struct_fields__)
_FINAL_STATE = EXECUTION_COLUMNS.index("final_state")


def inserted_rows(changes: Changes) -> list[list[Any]]:
    """Return rows with the ``EXECUTION_COLUMNS`` of the executions that no row holds yet."""
    executions = changes.states.executions
    return [_execution_row(key[0], executions[key]) for key in changes.inserted]


def _execution_row(tenant: str, execution: Execution) -> list[Any]:
    row = [tenant, *msgspec.structs.astuple(execution)]
    if execution.final_state is not None:
        row[_FINAL_STATE] = _json(execution.final_state).decode()
    return row


Statement = tuple[str, tuple[Any, ...]]
"""The name of a statement in ``queries.sql``, and its parameters."""


def statements(changes: Changes) -> list[Statement]:
    """Return the statements that write a batch, except for the rows that are inserted with COPY."""
    states = changes.states
    updated = {key: e for key, e in states.executions.items() if key not in changes.inserted}
    rows: list[tuple[str, dict[Any, Any], Callable[[Any], str]]] = [
        ("write_actors", states.actors, actor_rows),
        ("write_totals", states.totals, totals_rows),
        ("write_executions", updated, execution_rows),
        ("write_workers", states.workers, worker_rows),
        ("write_subscriptions", changes.subscriptions, subscription_rows),
    ]
    bulk_updates = [
        (
            *s.key,
            s.up_to_ordinal,
            s.status.value,
            s.status_message,
            s.finished_at,
            s.excluded_ordinals,
            s.sequence,
        )
        for s in changes.bulk_updates
    ]
    written = [(query, (encode(found),)) for query, found, encode in rows if found]
    return [*written, *(("bulk_update", parameters) for parameters in bulk_updates)]


def actor_rows(actors: dict[ActorKey, Actor]) -> str:
    """Return rows of ``actors``; the totals are zero for new rows, and not written to others."""
    return _encode([_actor_row(tenant, actor) for (tenant, _), actor in actors.items()])


def _actor_row(tenant: str, actor: Actor) -> dict[str, Any]:
    definition = actor.definition
    return {
        **msgspec.structs.asdict(Totals()),
        **msgspec.structs.asdict(actor),
        "tenant": tenant,
        "name": definition.name,
        "image": definition.image,
        "description": definition.description,
        "state": msgspec.json.encode(actor.state).decode(),
    }


def totals_rows(totals: dict[ActorKey, Totals]) -> str:
    """Return the totals columns of ``actors``."""
    return _rows(
        _joined({"tenant": tenant, "actor_id": actor_id}, sums)
        for (tenant, actor_id), sums in totals.items()
    )


def execution_rows(executions: dict[ExecutionKey, Execution]) -> str:
    """Return rows of ``executions``."""
    return _rows(_joined({"tenant": key[0]}, state) for key, state in executions.items())


def worker_rows(workers: dict[WorkerKey, Worker]) -> str:
    """Return rows of ``workers``."""
    return _rows(_joined({"tenant": key[0]}, state) for key, state in workers.items())


def subscription_rows(subscriptions: dict[SubscriptionKey, Subscription | None]) -> str:
    """Return rows of ``subscriptions``; a removed one has no ``event_pattern``."""
    return _encode(
        [
            {
                "tenant": tenant,
                "actor_id": actor_id,
                "subscription_id": subscription_id,
                "event_pattern": subscription and subscription.event_pattern,
                "subscribed_at": subscription and subscription.subscribed_at,
            }
            for (tenant, actor_id, subscription_id), subscription in subscriptions.items()
        ]
    )


def _encode(rows: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()


def _rows(objects: Iterable[bytes]) -> str:
    return f"[{b','.join(objects).decode()}]"


def _joined(key: dict[str, str], state: msgspec.Struct) -> bytes:
    """Return one JSON object of both: the first ends, and the second begins, with a brace."""
    return _json(key)[:-1] + b"," + _json(state)[1:]


_json = msgspec.json.Encoder().encode
