"""The catalogue of events: every fact the system records, and who may record it.

Rules of this module:

* a name is an aggregate and a past participle, in three spellings:
  ``ExecutionFinished``, ``execution.finished``, ``….execution.finished``;
* a field is added with a default, never renamed or removed; a breaking change is a new type and
  an entry in :mod:`abaco_proto.upcast`;
* nothing secret in clear, and nothing large: output goes to its own stream.

Units are in the names: ``_ns`` nanoseconds, ``_ms`` milliseconds, ``_bytes`` bytes. Times inside
events are RFC 3339 in UTC.
"""

from enum import StrEnum
from typing import Any

import msgspec


class Owner(StrEnum):
    """The service that alone may append an event type."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class StartKind(StrEnum):
    """How the container of an execution came to run."""

    POOL = "pool"
    COLD = "cold"


class EndedBy(StrEnum):
    """What ended a run: its own program, a person, or the setting that it ran into."""

    ITSELF = "itself"
    HALT = "halt"
    MAX_RUN_SECONDS = "max_run_seconds"
    MEM_LIMIT = "mem_limit"
    MAX_DISK_BYTES = "max_disk_bytes"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=""):
    """The root of all events. ``type`` on the wire is the tag of the class."""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """All that a registration says about an actor, settings already applied.

    A limit that is None is the host's own setting. ``mem_limit``, ``max_log_bytes`` and
    ``max_disk_bytes`` are bytes, ``max_cpus`` processors, ``max_run_seconds`` and ``log_ex``
    seconds; ``log_ex`` is how long output is kept after the end of its run. With
    ``no_new_privileges`` a setuid program has no more rights than who runs it.
    """

    name: str
    image: str
    description: str | None = None
    default_environment: dict[str, str] = {}
    stateless: bool = True
    min_workers: int = 2
    max_workers: int = 4
    mem_limit: int | None = None
    max_cpus: float | None = None
    max_processes: int | None = None
    max_run_seconds: float | None = None
    max_log_bytes: int | None = None
    max_disk_bytes: int | None = None
    log_ex: int | None = None
    privileged: bool = False
    no_new_privileges: bool = True


# -- actor ---------------------------------------------------------------------------------------


class ActorRegistered(Event, frozen=True, kw_only=True, tag="actor.registered"):
    """An actor exists from here on. ``revision`` starts at 1."""

    actor_id: str
    definition: Definition
    revision: int = 1


class ActorUpdated(Event, frozen=True, kw_only=True, tag="actor.updated"):
    """The whole new definition. ``revision`` rises when the image changes."""

    actor_id: str
    definition: Definition
    revision: int


class ActorDeleted(Event, frozen=True, kw_only=True, tag="actor.deleted"):
    """The actor is gone; what still waits in its inbox never runs, and what runs is halted."""

    actor_id: str


class ActorStateSet(Event, frozen=True, kw_only=True, tag="actor.state_set"):
    """The actor's state was replaced. ``version`` counts from 1."""

    actor_id: str
    state: Any
    version: int


class ActorSubscribed(Event, frozen=True, kw_only=True, tag="actor.subscribed"):
    """Events that match the pattern are to be sent to this actor as messages."""

    actor_id: str
    subscription_id: str
    event_pattern: str


class ActorUnsubscribed(Event, frozen=True, kw_only=True, tag="actor.unsubscribed"):
    """A subscription ended."""

    actor_id: str
    subscription_id: str


# -- inbox ---------------------------------------------------------------------------------------


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of an earlier run, to be used again instead of those in force now.

    ``actor_sequence`` and ``state_sequence`` are where the definition and the state of then stand
    in the log (0: there was no state); ``image`` is the very image, by its digest.
    """

    execution_id: str
    actor_sequence: int
    state_sequence: int
    image: str


class MessageReceived(Event, frozen=True, kw_only=True, tag="message.received"):
    """A message was accepted: from here on it is exactly one execution.

    ``ordinal`` counts the actor's messages from 0 without gaps. ``message`` is what ``$MSG`` will
    hold, ``environment`` what the request set on top of the actor's default environment.
    A message that a subscription made of an event names both: ``source_sequence`` is the event's.
    """

    actor_id: str
    execution_id: str
    ordinal: int
    message: str
    content_type: str = "text/plain"
    environment: dict[str, str] = {}
    sender: str | None = None
    subscription_id: str | None = None
    source_sequence: int = 0
    rerun: Rerun | None = None


class InboxPurged(Event, frozen=True, kw_only=True, tag="inbox.purged"):
    """What waited, up to and including this ordinal, never runs."""

    actor_id: str
    up_to_ordinal: int


# -- worker --------------------------------------------------------------------------------------


class WorkerRequested(Event, frozen=True, kw_only=True, tag="worker.requested"):
    """A host is asked for a seat. ``actor_sequence`` is where the definition stands in the log.

    ``warm`` says that it is ready only with a sandbox that waits; without, as soon as the image is
    there: a message waits already, and the sandbox may be started under its eyes.
    """

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    actor_sequence: int
    reason: str
    warm: bool = True


BY_A_PERSON = "asked for by a person"
"""The ``reason`` of a stop that a client asked for. The worker is not replaced until messages need
another one, also where that leaves fewer than ``min_workers``."""


class WorkerStopRequested(Event, frozen=True, kw_only=True, tag="worker.stop_requested"):
    """A seat is to be given up as soon as it is idle."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


class WorkerReady(Event, frozen=True, kw_only=True, tag="worker.ready"):
    """A seat can run a message. ``location`` is the URL of the container engine."""

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    image: str
    image_digest: str
    location: str
    container_id: str | None = None


class WorkerFailed(Event, frozen=True, kw_only=True, tag="worker.failed"):
    """A seat could not be made ready, or broke; ``reason`` is for a person."""

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    reason: str


class WorkerStopped(Event, frozen=True, kw_only=True, tag="worker.stopped"):
    """A seat was given up in good order."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


class WorkerLost(Event, frozen=True, kw_only=True, tag="worker.lost"):
    """A seat is gone with its host; nobody on that host may speak for it any more."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


# -- host ----------------------------------------------------------------------------------------


class HostJoined(Event, frozen=True, kw_only=True, tag="host.joined"):
    """A host takes work, with room for ``capacity`` seats (again when the capacity changes)."""

    host_id: str
    capacity: int


class HostLost(Event, frozen=True, kw_only=True, tag="host.lost"):
    """A host sent no heartbeat for too long."""

    host_id: str
    reason: str


# -- execution -----------------------------------------------------------------------------------


class ExecutionAssigned(Event, frozen=True, kw_only=True, tag="execution.assigned"):
    """This worker on this host runs this message. ``attempt`` counts from 1.

    ``message_sequence``, ``actor_sequence`` and ``state_sequence`` are where the message, the
    definition in force and the actor's state stand in the log: with them a host needs no state of
    its own to run it. A ``state_sequence`` of 0 says that there is no state, None that it is to
    be looked up (older assignments).
    """

    actor_id: str
    execution_id: str
    ordinal: int
    attempt: int
    worker_id: str
    host_id: str
    message_sequence: int
    actor_sequence: int
    state_sequence: int | None = None


class ExecutionStarted(Event, frozen=True, kw_only=True, tag="execution.started"):
    """The container of this attempt runs. ``revision`` is the actor's; 0 when nobody can tell.

    ``taken_at`` is when the worker took the assignment. ``state_sequence`` is where the state that
    the run was given stands in the log; 0 when the actor had none.
    """

    actor_id: str
    execution_id: str
    attempt: int
    worker_id: str
    host_id: str
    container_id: str
    image_digest: str
    start_kind: StartKind
    started_at: str
    revision: int = 0
    taken_at: str = ""
    state_sequence: int = 0


class FinalState(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended. ``error`` is for a person: why it could not run, or what ended it.

    ``signal`` is the one that ended the program, 0 for none.
    """

    status: str
    exit_code: int
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    ended_by: EndedBy = EndedBy.ITSELF
    signal: int = 0


class ExecutionFinished(Event, frozen=True, kw_only=True, tag="execution.finished"):
    """The container of this attempt ended, and its output is in the output stream.

    ``log_bytes`` and ``log_sha256`` are of the output as recorded; ``log_truncated`` says that
    there was more. ``memory_bytes`` is the peak. ``io_bytes`` are those read and written over the
    network (``network_bytes``, loopback left out) and on block devices, and those of the output,
    beyond its limit too;
    ``first_output_at`` is empty when nothing was written.
    """

    actor_id: str
    execution_id: str
    attempt: int
    worker_id: str
    host_id: str
    exit_code: int
    final_state: FinalState
    cpu_ns: int
    io_bytes: int
    runtime_ms: float
    log_bytes: int
    log_sha256: str
    log_truncated: bool = False
    memory_bytes: int = 0
    network_bytes: int = 0
    first_output_at: str = ""


class ExecutionFailed(Event, frozen=True, kw_only=True, tag="execution.failed"):
    """This attempt came to nothing through no fault of the image's; ``reason`` is for a person.

    The execution waits for another attempt; the worker is free.
    """

    actor_id: str
    execution_id: str
    attempt: int
    worker_id: str
    host_id: str
    reason: str


class ExecutionHaltRequested(Event, frozen=True, kw_only=True, tag="execution.halt_requested"):
    """This execution is to end: a person wants it, or its actor was deleted."""

    actor_id: str
    execution_id: str


class ExecutionAbandoned(Event, frozen=True, kw_only=True, tag="execution.abandoned"):
    """The attempts are used up: the dead letter, with the last reason."""

    actor_id: str
    execution_id: str
    attempts: int
    reason: str


class ExecutionRetryRequested(Event, frozen=True, kw_only=True, tag="execution.retry_requested"):
    """A person wants an abandoned execution to be tried again; ``attempts`` were used up."""

    actor_id: str
    execution_id: str
    attempts: int


# -- not in the log ------------------------------------------------------------------------------


class Unrecognized(Event, frozen=True, kw_only=True, tag="_unrecognized"):
    """What a reader gets for bytes it cannot read: a type from the future, or damage.

    It is never appended. Folds leave their state as it is; readers count it.
    """

    raw: bytes
    reason: str


OWNERS: dict[type[Event], Owner] = {
    ActorRegistered: Owner.API,
    ActorUpdated: Owner.API,
    ActorDeleted: Owner.API,
    ActorStateSet: Owner.API,
    ActorSubscribed: Owner.API,
    ActorUnsubscribed: Owner.API,
    MessageReceived: Owner.API,
    InboxPurged: Owner.API,
    ExecutionHaltRequested: Owner.API,
    ExecutionRetryRequested: Owner.API,
    WorkerRequested: Owner.SCHEDULER,
    WorkerStopRequested: Owner.SCHEDULER,
    WorkerLost: Owner.SCHEDULER,
    HostJoined: Owner.SCHEDULER,
    HostLost: Owner.SCHEDULER,
    ExecutionAssigned: Owner.SCHEDULER,
    ExecutionAbandoned: Owner.SCHEDULER,
    WorkerReady: Owner.WORKER,
    WorkerFailed: Owner.WORKER,
    WorkerStopped: Owner.WORKER,
    ExecutionStarted: Owner.WORKER,
    ExecutionFinished: Owner.WORKER,
    ExecutionFailed: Owner.WORKER,
}
"""Who appends what. ``worker.stop_requested`` is also appended by the api, on a person's order;
``execution.halt_requested`` by the scheduler, when an actor is deleted."""


def type_of(event: Event | type[Event]) -> str:
    """The tag of an event or of its class, e.g. ``execution.finished``."""
    tag = _TAGS.get(type(event))  # type: ignore[arg-type]
    return _TAGS[event] if tag is None else tag  # type: ignore[index]


def _tag(kind: type[Event]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


_KINDS: tuple[type[Event], ...] = (*OWNERS, Unrecognized)
_TAGS = {kind: _tag(kind) for kind in _KINDS}

TYPES: dict[str, type[Event]] = {type_of(kind): kind for kind in OWNERS}
