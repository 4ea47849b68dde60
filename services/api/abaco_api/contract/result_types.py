"""The types of results in responses. Times are RFC 3339 in UTC."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from abaco_proto.events import FinalState

Nanoseconds = Annotated[int, Meta(description="Nanoseconds of processor time.", ge=0)]
Bytes = Annotated[int, Meta(description="Bytes.", ge=0)]
Transferred = Annotated[
    int,
    Meta(
        description="Bytes read and written over the network and on block devices, and bytes of"
        " output: docs/reference/statistics.md.",
        ge=0,
    ),
]
Seconds = Annotated[float, Meta(description="Seconds.", ge=0)]


class SubscriptionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription of an actor."""

    subscription_id: str
    actor_id: str
    event_pattern: str


class ActorResult(msgspec.Struct, frozen=True, kw_only=True):
    """An actor. ``executions`` is always empty: executions have their own list.

    For a limit or an isolation that is null, the host's setting applies.
    """

    id: str
    name: str
    image: str
    description: str | None
    status: str
    status_message: str
    state: Any
    executions: dict[str, Any]
    subscriptions: list[SubscriptionResult]
    default_environment: dict[str, str]
    stateless: bool
    min_workers: int
    max_workers: int
    mem_limit: int | None
    max_cpus: float | None
    max_processes: int | None
    max_run_seconds: float | None
    max_log_bytes: int | None
    max_disk_bytes: int | None
    log_ex: int | None
    privileged: bool
    no_new_privileges: bool
    isolation: str | None
    revision: int
    create_time: str
    last_update_time: str


class StateResult(msgspec.Struct, frozen=True, kw_only=True):
    """An actor's state; ``version`` is how often it was set."""

    state: Any
    version: int


class MessageResult(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was accepted: ``msg`` as the client sent it."""

    execution_id: str
    msg: Any


class WaitingResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of waiting messages."""

    messages: int


class ExecutionsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Ids in the order of the log, and totals over all executions of the actor."""

    actor_id: str
    ids: list[str]
    total_executions: int
    total_complete: int
    total_error: int
    total_halted: int
    total_purged: int
    total_cpu: Nanoseconds
    total_io: Transferred
    total_runtime: Seconds


class TimelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """When each step of an execution happened, by the clock of the process that did it.

    The message was accepted, a worker took it, its program was started, wrote for the first time
    and ended, and its end was recorded in the log.
    """

    accepted: str | None
    taken: str | None
    started: str | None
    first_output: str | None
    ended: str | None
    recorded: str | None


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One execution."""

    id: str
    actor_id: str
    worker_id: str | None
    status: str
    status_message: str
    exit_code: int | None
    final_state: FinalState | None
    cpu: Nanoseconds
    io: Transferred
    runtime: Seconds
    memory: Bytes
    network: Bytes
    message_received_time: str | None
    start_time: str | None
    finish_time: str | None
    timeline: TimelineResult
    attempt: int
    halt_requested: bool
    rerun_of: str | None
    start_kind: str | None
    container_id: str | None
    image_digest: str | None
    host_id: str | None
    log_bytes: Bytes
    log_truncated: bool


class WorkerResult(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. ``ch_name`` is the same as ``id``; ``cid`` is the id of its container.

    ``isolation`` is what separates its messages: ``sandbox`` or ``container``; null until it is
    ready. If messages do not get all that the actor or the setting of the host asks for, such as a
    network of their own, ``isolation_reason`` says what and why; otherwise it is empty.
    """

    id: str
    actor_id: str
    host_id: str
    image: str
    location: str
    cid: str | None
    ch_name: str
    status: str
    status_message: str
    last_update: str
    create_time: str
    revision: int
    image_digest: str
    execution_id: str | None
    isolation: str | None
    isolation_reason: str


class ScaleResult(msgspec.Struct, frozen=True, kw_only=True):
    """The minimum and maximum number of workers of an actor."""

    actor_id: str
    min_workers: int
    max_workers: int


class TokenResult(msgspec.Struct, frozen=True, kw_only=True):
    """An API token, without its text: ``prefix`` is how its text begins.

    ``actors`` are the only ones that it reaches; null is no limit. ``last_use_date`` is a day in
    UTC.
    """

    id: str
    prefix: str
    name: str
    owner: str
    roles: list[str]
    read_only: bool
    actors: list[str] | None
    created_by: str
    create_time: str
    expire_time: str
    last_use_date: str | None


class NewTokenResult(TokenResult, frozen=True, kw_only=True):
    """A new API token. ``token`` is its text, which cannot be shown again."""

    token: str | None


class NonceResult(msgspec.Struct, frozen=True, kw_only=True):
    """A nonce, without its text: ``prefix`` is how its text begins.

    ``max_uses`` and ``remaining_uses`` are -1 if there is no limit. ``owner`` is the user who made
    it; null if nobody was logged in.
    """

    id: str
    prefix: str
    actor_id: str
    owner: str | None
    level: str
    max_uses: int
    current_uses: int
    remaining_uses: int
    description: str
    create_time: str
    last_use_time: str | None


class NewNonceResult(NonceResult, frozen=True, kw_only=True):
    """A new nonce. ``nonce`` is its text, which cannot be shown again."""

    nonce: str | None


class ReadinessResult(msgspec.Struct, frozen=True, kw_only=True):
    """For each part ``ok``, or the reason why it does not work."""

    nats: str
    postgres: str
    projector: str
    actors: str
