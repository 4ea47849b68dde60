"""The catalogue of events, and the service that may append each.

Rules of this module:

* a name is an aggregate and a past participle, in three spellings:
  ``ExecutionFinished``, ``execution.finished``, ``….execution.finished``;
* a field is added with a default, never renamed or removed; a breaking change is a new type and
  an entry in :data:`abaco_proto.envelope.UPCASTS`;
* a field with named values can get another value: a reader keeps a value that it does not know as
  the text that it is, and treats it as none of those it knows;
* no secrets in clear text, and nothing large: output has its own stream.

Units are in the names: ``_ns`` nanoseconds, ``_ms`` milliseconds, ``_bytes`` bytes. Times inside
events are RFC 3339 in UTC.
"""

from enum import StrEnum
from typing import Any, Self

import msgspec
from msgspec import UNSET, UnsetType


class Owner(StrEnum):
    """The service that may append an event type."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class OpenEnum(StrEnum):
    """The named values of a field, which may get more: an unknown text is a member of its own.

    That member is equal to its text and is encoded as it, but is not in the list of members.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class StartKind(OpenEnum):
    """How the program of an execution came to run.

    ``sandbox``: in a new sandbox of the worker's container. ``pool``: in a container of its own
    that was started before the message. ``cold``: in either, but the container was not ready.
    """

    SANDBOX = "sandbox"
    POOL = "pool"
    COLD = "cold"


class Isolation(OpenEnum):
    """What separates a message from the one before it.

    ``sandbox``: a new sandbox in the worker's container. ``container``: a container of its own.
    """

    SANDBOX = "sandbox"
    CONTAINER = "container"


class EndedBy(OpenEnum):
    """What ended a run: its own program, a halt, or the limit that it reached."""

    ITSELF = "itself"
    HALT = "halt"
    MAX_RUN_SECONDS = "max_run_seconds"
    MEM_LIMIT = "mem_limit"
    MAX_DISK_BYTES = "max_disk_bytes"


class PermissionLevel(StrEnum):
    """What a user may do with an actor, from the least to the most; each includes those before."""

    NONE = "NONE"
    READ = "READ"
    EXECUTE = "EXECUTE"
    UPDATE = "UPDATE"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=""):
    """The base class of events. ``type`` on the wire is the tag of the class."""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of an actor, with the defaults of the settings applied.

    A limit that is None is the setting of the host. ``mem_limit``, ``max_log_bytes`` and
    ``max_disk_bytes`` are bytes, ``max_cpus`` processors, ``max_run_seconds`` and ``log_ex``
    seconds; ``log_ex`` is how long output is kept after the end of its run. With
    ``no_new_privileges`` a setuid program gets no additional rights. ``isolation`` is in the event
    only if the actor has one; otherwise that of the host applies.
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
    isolation: Isolation | UnsetType = UNSET


# -- actor ---------------------------------------------------------------------------------------


class ActorRegistered(Event, frozen=True, kw_only=True, tag="actor.registered"):
    """An actor was registered. ``revision`` starts at 1.

    ``owner`` is the user who registered it and has the level ``UPDATE``; it is not in the event if
    authentication is off.
    """

    actor_id: str
    definition: Definition
    revision: int = 1
    owner: str | UnsetType = UNSET


class ActorUpdated(Event, frozen=True, kw_only=True, tag="actor.updated"):
    """A definition was replaced. ``revision`` is incremented when the image changes."""

    actor_id: str
    definition: Definition
    revision: int


class ActorDeleted(Event, frozen=True, kw_only=True, tag="actor.deleted"):
    """An actor was deleted: waiting messages never run, and running executions are halted."""

    actor_id: str


class ActorStateSet(Event, frozen=True, kw_only=True, tag="actor.state_set"):
    """An actor's state was replaced. ``version`` counts from 1."""

    actor_id: str
    state: Any
    version: int


class ActorSubscribed(Event, frozen=True, kw_only=True, tag="actor.subscribed"):
    """Events that match the pattern are sent to this actor as messages."""

    actor_id: str
    subscription_id: str
    event_pattern: str


class ActorUnsubscribed(Event, frozen=True, kw_only=True, tag="actor.unsubscribed"):
    """A subscription ended."""

    actor_id: str
    subscription_id: str


# -- inbox ---------------------------------------------------------------------------------------


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of an earlier run, used instead of the current ones.

    ``actor_sequence`` and ``state_sequence`` are the sequences of the events with the definition
    and the state of that run (0: there was no state); ``image`` is its image, by digest.
    """

    execution_id: str
    actor_sequence: int
    state_sequence: int
    image: str


class MessageReceived(Event, frozen=True, kw_only=True, tag="message.received"):
    """A message was accepted. It leads to exactly one execution.

    ``ordinal`` counts the actor's messages from 0 without gaps. ``message`` becomes ``$MSG``;
    ``environment`` is added to the actor's default environment. A message from a subscription has
    the id of the subscription, and the sequence of the event as ``source_sequence``.
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
    """Waiting messages up to and including this ordinal never run."""

    actor_id: str
    up_to_ordinal: int


# -- worker --------------------------------------------------------------------------------------


class WorkerRequested(Event, frozen=True, kw_only=True, tag="worker.requested"):
    """A worker was requested from a host. ``actor_sequence`` is that of the definition's event.

    With ``warm``, the worker is ready when it has an idle sandbox. Without, it is ready as soon as
    the image is there, because a message waits already.
    """

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    actor_sequence: int
    reason: str
    warm: bool = True


REQUESTED_BY_CLIENT = "asked for by a person"
"""The ``reason`` of a stop that a client requested. The worker is not replaced until messages need
one, even if fewer than ``min_workers`` are left."""


class WorkerStopRequested(Event, frozen=True, kw_only=True, tag="worker.stop_requested"):
    """A worker is to stop as soon as it is idle."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


class WorkerReady(Event, frozen=True, kw_only=True, tag="worker.ready"):
    """A worker can run a message. ``location`` is the URL of the container engine.

    ``isolation`` is what the worker uses. If messages do not get all that the actor or the host's
    setting asks for, ``isolation_reason`` says what and why, for people. Both are absent in older
    events.
    """

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    image: str
    image_digest: str
    location: str
    container_id: str | None = None
    isolation: Isolation | UnsetType = UNSET
    isolation_reason: str | UnsetType = UNSET


class WorkerFailed(Event, frozen=True, kw_only=True, tag="worker.failed"):
    """A worker could not be made ready, or broke; ``reason`` is for people."""

    actor_id: str
    worker_id: str
    host_id: str
    revision: int
    reason: str


class WorkerStopped(Event, frozen=True, kw_only=True, tag="worker.stopped"):
    """A worker was stopped by its host."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


class WorkerLost(Event, frozen=True, kw_only=True, tag="worker.lost"):
    """A worker is lost with its host, which may append no more events about it."""

    actor_id: str
    worker_id: str
    host_id: str
    reason: str


# -- host ----------------------------------------------------------------------------------------


class HostJoined(Event, frozen=True, kw_only=True, tag="host.joined"):
    """A host joined with ``capacity`` slots. Appended again when the capacity changes."""

    host_id: str
    capacity: int


class HostLost(Event, frozen=True, kw_only=True, tag="host.lost"):
    """A host is lost: it sent no heartbeat for too long."""

    host_id: str
    reason: str


# -- execution -----------------------------------------------------------------------------------


class ExecutionAssigned(Event, frozen=True, kw_only=True, tag="execution.assigned"):
    """A message was assigned to a worker of a host. ``attempt`` counts from 1.

    ``message_sequence``, ``actor_sequence`` and ``state_sequence`` are the sequences of the events
    with the message, the definition and the actor's state, so that a host needs no state of its own
    to run it. A ``state_sequence`` of 0 means that there is no state; None, in older events, that
    the host has to search for it.
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
    """The program of an attempt was started. ``revision`` is the actor's; 0 if it is unknown.

    ``taken_at`` is when the worker received the assignment. ``state_sequence`` is that of the event
    with the state that the run received; 0 if the actor had none.
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
    """How a run ended. ``error`` is for people: why it could not run, or what ended it.

    ``signal`` is the one that ended the program, or 0.
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
    """The container of an attempt ended, and its output is in the output stream.

    ``log_bytes`` and ``log_sha256`` are those of the recorded output; ``log_truncated`` means that
    there was more. ``memory_bytes`` is the peak. ``io_bytes`` is the sum of the network
    (``network_bytes``, without loopback), the block devices, and the output including what is
    beyond its limit. ``first_output_at`` is empty if there was no output.
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
    """An attempt failed for a reason outside the image; ``reason`` is for people.

    The execution waits for another attempt; the worker is idle.
    """

    actor_id: str
    execution_id: str
    attempt: int
    worker_id: str
    host_id: str
    reason: str


class ExecutionHaltRequested(Event, frozen=True, kw_only=True, tag="execution.halt_requested"):
    """An execution is to end, because a client requested it or its actor was deleted."""

    actor_id: str
    execution_id: str


class ExecutionAbandoned(Event, frozen=True, kw_only=True, tag="execution.abandoned"):
    """No attempts are left: a dead letter, with the last reason."""

    actor_id: str
    execution_id: str
    attempts: int
    reason: str


class ExecutionRetryRequested(Event, frozen=True, kw_only=True, tag="execution.retry_requested"):
    """A client requested that an abandoned execution is tried again after ``attempts`` attempts."""

    actor_id: str
    execution_id: str
    attempts: int


# -- access --------------------------------------------------------------------------------------


class PermissionSet(Event, frozen=True, kw_only=True, tag="permission.set"):
    """A user's level on an actor was set. ``ABACO_WORLD`` is every user of the tenant."""

    actor_id: str
    user: str
    level: PermissionLevel


class TokenCreated(Event, frozen=True, kw_only=True, tag="token.created"):
    """An API token was made. The token itself is not in the event.

    ``token_id`` is its visible prefix, ``sha256`` the digest of its whole text in hexadecimal. It
    acts for ``owner`` with at most ``roles``; ``actors`` limits it to these actors, None to none.
    ``created_by`` is the principal that made it.
    """

    token_id: str
    sha256: str
    name: str
    owner: str
    roles: tuple[str, ...]
    read_only: bool
    actors: tuple[str, ...] | None
    expires_at: str
    created_by: str


class TokenRevoked(Event, frozen=True, kw_only=True, tag="token.revoked"):
    """An API token was revoked, for good."""

    token_id: str


class TokenUsed(Event, frozen=True, kw_only=True, tag="token.used"):
    """An API token was used on a day (UTC, ``2026-01-02``). At most one event per token and day."""

    token_id: str
    date: str


class NonceCreated(Event, frozen=True, kw_only=True, tag="nonce.created"):
    """A nonce was made: a credential for one actor, with one level on it.

    ``sha256`` is the digest of its whole text in hexadecimal; the text is not in the event. It may
    be used ``max_uses`` times; -1 is any number. ``owner`` is the user who made it, and empty if
    nobody was logged in.
    """

    nonce_id: str
    actor_id: str
    sha256: str
    level: PermissionLevel
    max_uses: int
    description: str
    owner: str


class NonceRedeemed(Event, frozen=True, kw_only=True, tag="nonce.redeemed"):
    """A nonce was used for one request. ``use`` counts its uses from 1."""

    nonce_id: str
    use: int


class NonceDeleted(Event, frozen=True, kw_only=True, tag="nonce.deleted"):
    """A nonce was deleted, for good. ``uses`` is how often it was used."""

    nonce_id: str
    uses: int


# -- not in the log ------------------------------------------------------------------------------


class Unrecognized(Event, frozen=True, kw_only=True, tag="_unrecognized"):
    """What a reader returns for bytes that it cannot decode: a newer type, or damaged data.

    It is never appended. Folds ignore it; readers count it.
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
    PermissionSet: Owner.API,
    TokenCreated: Owner.API,
    TokenRevoked: Owner.API,
    TokenUsed: Owner.API,
    NonceCreated: Owner.API,
    NonceRedeemed: Owner.API,
    NonceDeleted: Owner.API,
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
"""The service that appends each type. The api also appends ``worker.stop_requested``, if a client
requests it; the scheduler also ``execution.halt_requested``, if an actor is deleted."""


def type_of(event: Event | type[Event]) -> str:
    """The tag of an event or of its class, e.g. ``execution.finished``."""
    tag = TAGS.get(type(event))  # type: ignore[arg-type]
    return TAGS[event] if tag is None else tag  # type: ignore[index]


def _tag(kind: type[Event]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


_KINDS: tuple[type[Event], ...] = (*OWNERS, Unrecognized)
TAGS = {kind: _tag(kind) for kind in _KINDS}
"""The tag of each class of events."""

TYPES: dict[str, type[Event]] = {type_of(kind): kind for kind in OWNERS}
