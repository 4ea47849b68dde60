"""Events with everything filled in, and histories of them, for tests to vary."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Draft, Recorded, draft, encode, event_id
from abaco_proto.names import event_subject

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def definition(**changes: Any) -> ev.Definition:
    values: dict[str, Any] = {"name": "foo", "image": "jstubbs/abaco_test", **changes}
    return ev.Definition(**values)


def registered(actor_id: str = "foo_0", **changes: Any) -> ev.ActorRegistered:
    name = names.actor_name(actor_id)
    return ev.ActorRegistered(actor_id=actor_id, definition=definition(name=name, **changes))


def updated(actor_id: str = "foo_0", revision: int = 2, **changes: Any) -> ev.ActorUpdated:
    name = names.actor_name(actor_id)
    whole = definition(name=name, **{"image": "jstubbs/other", **changes})
    return ev.ActorUpdated(actor_id=actor_id, definition=whole, revision=revision)


def received(
    ordinal: int = 0, actor_id: str = "foo_0", message: str = "execute yourself", **changes: Any
) -> ev.MessageReceived:
    values: dict[str, Any] = {"message": message, **changes}
    return ev.MessageReceived(
        actor_id=actor_id,
        execution_id=names.execution_id(actor_id, ordinal),
        ordinal=ordinal,
        **values,
    )


def requested(number: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.WorkerRequested:
    values: dict[str, Any] = {
        "host_id": "h1",
        "revision": 1,
        "actor_sequence": 1,
        "reason": "below min_workers",
        **changes,
    }
    return ev.WorkerRequested(
        actor_id=actor_id, worker_id=names.worker_id(actor_id, number), **values
    )


def ready(number: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.WorkerReady:
    values: dict[str, Any] = {
        "host_id": "h1",
        "revision": 1,
        "image": "jstubbs/abaco_test",
        "image_digest": "sha256:0123",
        "location": "unix:///var/run/docker.sock",
        **changes,
    }
    return ev.WorkerReady(actor_id=actor_id, worker_id=names.worker_id(actor_id, number), **values)


def failed(number: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.WorkerFailed:
    values: dict[str, Any] = {
        "host_id": "h1",
        "revision": 1,
        "reason": "image jstubbs/abaco_test: pull failed: not found",
        **changes,
    }
    return ev.WorkerFailed(actor_id=actor_id, worker_id=names.worker_id(actor_id, number), **values)


def stop_requested(
    number: int = 0, actor_id: str = "foo_0", host_id: str = "h1", reason: str = "idle"
) -> ev.WorkerStopRequested:
    worker_id = names.worker_id(actor_id, number)
    return ev.WorkerStopRequested(
        actor_id=actor_id, worker_id=worker_id, host_id=host_id, reason=reason
    )


def stopped(number: int = 0, actor_id: str = "foo_0", host_id: str = "h1") -> ev.WorkerStopped:
    worker_id = names.worker_id(actor_id, number)
    return ev.WorkerStopped(actor_id=actor_id, worker_id=worker_id, host_id=host_id, reason="idle")


def lost(number: int = 0, actor_id: str = "foo_0", host_id: str = "h1") -> ev.WorkerLost:
    worker_id = names.worker_id(actor_id, number)
    return ev.WorkerLost(
        actor_id=actor_id, worker_id=worker_id, host_id=host_id, reason="host h1 is lost"
    )


def assigned(ordinal: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.ExecutionAssigned:
    values: dict[str, Any] = {
        "attempt": 1,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
        "message_sequence": 2,
        "actor_sequence": 1,
        "state_sequence": 0,
        **changes,
    }
    return ev.ExecutionAssigned(
        actor_id=actor_id,
        execution_id=names.execution_id(actor_id, ordinal),
        ordinal=ordinal,
        **values,
    )


def started(ordinal: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.ExecutionStarted:
    values: dict[str, Any] = {
        "attempt": 1,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
        "container_id": "c0ffee",
        "image_digest": "sha256:0123",
        "start_kind": ev.StartKind.COLD,
        "started_at": "2026-01-02T03:04:06Z",
        "revision": 1,
        **changes,
    }
    return ev.ExecutionStarted(
        actor_id=actor_id, execution_id=names.execution_id(actor_id, ordinal), **values
    )


def final_state(**changes: Any) -> ev.FinalState:
    values: dict[str, Any] = {
        "status": "exited",
        "exit_code": 0,
        "started_at": "2026-01-02T03:04:06Z",
        "finished_at": "2026-01-02T03:04:08Z",
        **changes,
    }
    return ev.FinalState(**values)


def finished(ordinal: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.ExecutionFinished:
    values: dict[str, Any] = {
        "attempt": 1,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
        "exit_code": 0,
        "final_state": final_state(),
        "cpu_ns": 9_000_000,
        "io_bytes": 736,
        "runtime_ms": 2004.5,
        "log_bytes": 33,
        "log_sha256": "ab" * 32,
        **changes,
    }
    return ev.ExecutionFinished(
        actor_id=actor_id, execution_id=names.execution_id(actor_id, ordinal), **values
    )


def execution_failed(
    ordinal: int = 0, actor_id: str = "foo_0", **changes: Any
) -> ev.ExecutionFailed:
    values: dict[str, Any] = {
        "attempt": 1,
        "worker_id": names.worker_id(actor_id, 0),
        "host_id": "h1",
        "reason": "the container was killed from outside",
        **changes,
    }
    return ev.ExecutionFailed(
        actor_id=actor_id, execution_id=names.execution_id(actor_id, ordinal), **values
    )


def retry_requested(
    ordinal: int = 0, actor_id: str = "foo_0", attempts: int = 3
) -> ev.ExecutionRetryRequested:
    execution_id = names.execution_id(actor_id, ordinal)
    return ev.ExecutionRetryRequested(
        actor_id=actor_id, execution_id=execution_id, attempts=attempts
    )


def halt_requested(ordinal: int = 0, actor_id: str = "foo_0") -> ev.ExecutionHaltRequested:
    execution_id = names.execution_id(actor_id, ordinal)
    return ev.ExecutionHaltRequested(actor_id=actor_id, execution_id=execution_id)


def abandoned(ordinal: int = 0, actor_id: str = "foo_0", **changes: Any) -> ev.ExecutionAbandoned:
    values: dict[str, Any] = {"attempts": 3, "reason": "host h1 is lost", **changes}
    return ev.ExecutionAbandoned(
        actor_id=actor_id, execution_id=names.execution_id(actor_id, ordinal), **values
    )


def joined(host_id: str = "h1", capacity: int = 16) -> ev.HostJoined:
    return ev.HostJoined(host_id=host_id, capacity=capacity)


def token_created(token_id: str = "AbCd1234", **changes: Any) -> ev.TokenCreated:
    values: dict[str, Any] = {
        "sha256": "ab" * 32,
        "name": "laptop",
        "owner": "alice",
        "roles": ("developer",),
        "read_only": False,
        "actors": ("foo_0",),
        "expires_at": "2026-04-02T03:04:05.000000Z",
        "created_by": "user alice",
        **changes,
    }
    return ev.TokenCreated(token_id=token_id, **values)


def nonce_created(nonce_id: str = "AbCd1234", **changes: Any) -> ev.NonceCreated:
    values: dict[str, Any] = {
        "actor_id": "foo_0",
        "sha256": "ab" * 32,
        "level": ev.PermissionLevel.EXECUTE,
        "max_uses": 100,
        "description": "for the form on the web page",
        "owner": "alice",
        **changes,
    }
    return ev.NonceCreated(nonce_id=nonce_id, **values)


EXAMPLES: tuple[ev.Event, ...] = (
    registered(description="says hello", default_environment={"A": "1"}),
    updated(),
    ev.ActorDeleted(actor_id="foo_0"),
    ev.ActorStateSet(actor_id="foo_0", state={"count": 1}, version=1),
    ev.ActorSubscribed(
        actor_id="foo_0", subscription_id="sub_0", event_pattern="bar_*.execution.finished"
    ),
    ev.ActorUnsubscribed(actor_id="foo_0", subscription_id="sub_0"),
    received(
        7,
        environment={"B": "2"},
        sender="bar_0",
        rerun=ev.Rerun(
            execution_id="foo_0_exc_3",
            actor_sequence=1,
            state_sequence=0,
            image="sha256:0123",
        ),
    ),
    ev.InboxPurged(actor_id="foo_0", up_to_ordinal=7),
    requested(),
    stop_requested(),
    ready(),
    failed(),
    stopped(),
    lost(),
    joined(),
    ev.HostLost(host_id="h1", reason="no heartbeat for 10 s"),
    assigned(7),
    started(7),
    finished(7),
    execution_failed(7),
    halt_requested(7),
    abandoned(7),
    retry_requested(7),
    ev.PermissionSet(actor_id="foo_0", user="alice", level=ev.PermissionLevel.EXECUTE),
    token_created(),
    ev.TokenRevoked(token_id="AbCd1234"),
    ev.TokenUsed(token_id="AbCd1234", date="2026-01-02"),
    nonce_created(),
    ev.NonceRedeemed(nonce_id="AbCd1234", use=7),
    ev.NonceDeleted(nonce_id="AbCd1234", uses=7),
)
"""One event of each type."""

VARIANTS: dict[str, ev.Event] = {
    "actor.registered.owner": msgspec.structs.replace(registered(), owner="alice"),
    "actor.registered.isolation": registered(isolation=ev.Isolation.CONTAINER),
    "actor.updated.isolation": updated(isolation=ev.Isolation.SANDBOX),
    "worker.ready.isolation": ready(
        isolation=ev.Isolation.CONTAINER, isolation_reason="no launcher: the engine is rootless"
    ),
    "execution.started.sandbox": started(7, start_kind=ev.StartKind.SANDBOX),
}
"""Events with a value, or a field, that their example does not have."""


def envelope_of(
    event: ev.Event, *, tenant: str = "default", at: datetime = T0, hops: int = 0
) -> Draft:
    return draft(event, tenant=tenant, time=at, causation_id="req-1", hops=hops)


def record(
    event: ev.Event, sequence: int = 1, *, at: datetime = T0, tenant: str = "default"
) -> Recorded:
    known = type(event) in ev.OWNERS
    return Recorded(
        sequence=sequence,
        subject=event_subject(tenant, event) if known else f"abaco.event.{tenant}.x.y.z",
        tenant=tenant,
        event=event,
        id=event_id(event) if known else "",
        time=at,
        raw=encode(event) if known else getattr(event, "raw", b""),
    )


def history(*events: ev.Event, start: datetime = T0) -> list[Recorded]:
    """The events as a log would hold them: sequences from 1, a second apart."""
    return [record(event, n, at=start + timedelta(seconds=n)) for n, event in enumerate(events, 1)]
