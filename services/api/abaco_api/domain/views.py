"""Rows and folds to results: pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from abaco_api.contract import result_types as r
from abaco_api.streams.domain.event_result import (
    NULL,
    EventResult,
    HeadResult,
    SealedEventResult,
    data_of,
)
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Transcript
from abaco_proto.actor import Actor
from abaco_proto.envelope import format_time
from abaco_proto.events import Definition, FinalState


class Row(Protocol):
    """A row, by the names of its columns."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""
        ...


CLIENT_STATUS = {"ASSIGNED": "SUBMITTED"}
"""To a client a message waits until it runs."""


def actor_of_fold(actor: Actor) -> r.ActorResult:
    """An actor as a command left it."""
    return _actor(
        actor.actor_id,
        actor.definition,
        status=actor.status.value,
        status_message=actor.status_message,
        state=actor.state,
        subscriptions=actor.subscriptions,
        revision=actor.revision,
        create_time=format_time(actor.registered_at),
        last_update_time=format_time(actor.updated_at),
    )


def actor(row: Row) -> r.ActorResult:
    """A row of ``actors``, with its subscriptions as a JSON object of patterns by id."""
    return _actor(
        row["actor_id"],
        msgspec.json.decode(row["definition"], type=Definition),
        status=row["status"],
        status_message=row["status_message"],
        state=_json(row["state"]),
        subscriptions=msgspec.json.decode(row["subscriptions"], type=dict[str, str]),
        revision=row["revision"],
        create_time=format_time(row["registered_at"]),
        last_update_time=format_time(row["updated_at"]),
    )


def _actor(
    actor_id: str, definition: Definition, *, subscriptions: Mapping[str, str], **known: Any
) -> r.ActorResult:
    return r.ActorResult(
        id=actor_id,
        name=definition.name,
        image=definition.image,
        description=definition.description,
        default_environment=definition.default_environment,
        stateless=definition.stateless,
        min_workers=definition.min_workers,
        max_workers=definition.max_workers,
        mem_limit=definition.mem_limit,
        max_cpus=definition.max_cpus,
        max_processes=definition.max_processes,
        max_run_seconds=definition.max_run_seconds,
        max_log_bytes=definition.max_log_bytes,
        max_disk_bytes=definition.max_disk_bytes,
        log_ex=definition.log_ex,
        privileged=definition.privileged,
        no_new_privileges=definition.no_new_privileges,
        isolation=None if definition.isolation is UNSET else definition.isolation,
        executions={},
        subscriptions=[
            r.SubscriptionResult(subscription_id=key, actor_id=actor_id, event_pattern=pattern)
            for key, pattern in subscriptions.items()
        ],
        **known,
    )


def state(row: Row) -> r.StateResult:
    """The state in a row of ``actors``."""
    return r.StateResult(state=_json(row["state"]), version=row["state_version"])


def seconds(ms: float) -> float:
    """Milliseconds in seconds, to the microsecond: no engine's clock is finer than the rest."""
    return round(ms / 1000, 6)


def executions(row: Row, limit: int | None = None) -> r.ExecutionsResult:
    """The totals in a row of ``actors``, with the ids of a page, or the first of them."""
    return r.ExecutionsResult(
        actor_id=row["actor_id"],
        ids=list(row["ids"][:limit]),
        total_executions=row["total_executions"],
        total_complete=row["total_complete"],
        total_error=row["total_error"],
        total_halted=row["total_halted"],
        total_purged=row["total_purged"],
        total_cpu=row["total_cpu_ns"],
        total_io=row["total_io_bytes"],
        total_runtime=seconds(row["total_runtime_ms"]),
    )


def execution(row: Row) -> r.ExecutionResult:
    """A row of ``executions``."""
    final_state = row["final_state"]
    return r.ExecutionResult(
        id=row["execution_id"],
        actor_id=row["actor_id"],
        worker_id=row["worker_id"],
        status=CLIENT_STATUS.get(row["status"]) or row["status"],
        status_message=row["status_message"],
        exit_code=row["exit_code"],
        final_state=final_state and msgspec.json.decode(final_state, type=FinalState),
        cpu=row["cpu_ns"],
        io=row["io_bytes"],
        runtime=seconds(row["runtime_ms"]),
        memory=row["memory_bytes"],
        network=row["network_bytes"],
        message_received_time=_time(row["message_received_at"]),
        start_time=_time(row["started_at"]),
        finish_time=_time(row["finished_at"]),
        timeline=_timeline(row),
        attempt=row["attempt"],
        halt_requested=row["halt_requested"],
        rerun_of=row["rerun_of"],
        start_kind=row["start_kind"],
        container_id=row["container_id"],
        image_digest=row["image_digest"],
        host_id=row["host_id"],
        log_bytes=row["log_bytes"],
        log_truncated=row["log_truncated"],
    )


def _timeline(row: Row) -> r.TimelineResult:
    return r.TimelineResult(
        accepted=_time(row["message_received_at"]),
        taken=_time(row["taken_at"]),
        started=_time(row["started_at"]),
        first_output=_time(row["first_output_at"]),
        ended=_time(row["finished_at"]),
        recorded=_time(row["recorded_at"]),
    )


def worker(row: Row) -> r.WorkerResult:
    """A row of ``workers``."""
    return r.WorkerResult(
        id=row["worker_id"],
        actor_id=row["actor_id"],
        host_id=row["host_id"],
        image=row["image"],
        location=row["location"],
        cid=row["container_id"],
        ch_name=row["worker_id"],
        status=row["status"],
        status_message=row["status_message"],
        last_update=format_time(row["updated_at"]),
        create_time=format_time(row["requested_at"]),
        revision=row["revision"],
        image_digest=row["image_digest"],
        execution_id=row["execution_id"],
        isolation=row["isolation"],
        isolation_reason=row["isolation_reason"],
    )


def subscription(row: Row) -> r.SubscriptionResult:
    """A row of ``subscriptions``."""
    return r.SubscriptionResult(
        subscription_id=row["subscription_id"],
        actor_id=row["actor_id"],
        event_pattern=row["event_pattern"],
    )


def event(row: Row) -> EventResult:
    """A row of ``events``."""
    return EventResult(**_event(row))


def sealed_event(row: Row) -> SealedEventResult:
    """A row of ``events`` with its hash."""
    return SealedEventResult(**_event(row), hash=bytes(row["hash"]).hex())


def head(row: Row | None) -> HeadResult:
    """The last row of ``events``."""
    if row is None:
        return HeadResult(sequence=0, hash=bytes(32).hex(), time=None)
    hash_, time = bytes(row["hash"]).hex(), format_time(row["time"])
    return HeadResult(sequence=row["seq"], hash=hash_, time=time)


def _event(row: Row) -> dict[str, Any]:
    names = (
        *("seq", "type", "tenant", "actor_id", "id", "causation_id", "correlation_id", "hops"),
        "principal",
    )
    data = NULL if row["data"] is None else data_of(row["data"].encode())
    return {**{n: row[n] for n in names}, "time": format_time(row["time"]), "data": data}


def output(chunks: Sequence[Row]) -> str:
    """Chunks of one attempt, in the order of their offsets, as one text."""
    transcript = Transcript(OutputOffset(1))
    pieces = [p for c in chunks for p in transcript.add(1, c["output_offset"], bytes(c["data"]))]
    return "".join(piece.text for piece in [*pieces, *transcript.finish()])


def expired(row: Row, now: datetime) -> bool:
    """Whether the output of an execution is not shown any more. ``log_ex`` is its actor's."""
    ended, kept = row["finished_at"], row["log_ex"]
    if ended is None or kept is None:
        return False
    return bool(now - ended >= timedelta(seconds=kept))


def _json(text: str) -> msgspec.Raw:
    return msgspec.Raw((text or '""').encode())


def _time(time: datetime | None) -> str | None:
    return None if time is None else format_time(time)
