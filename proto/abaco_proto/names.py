"""Names: the ids of things, and the subjects and filters that are made of them.

=================  ==========================  =======================
id                 form                        example
=================  ==========================  =======================
``actor_id``       ``<name>_<n>``              ``foo_0``
``execution_id``   ``<actor_id>_exc_<n>``      ``foo_0_exc_7``
``worker_id``      ``<actor_id>_wkr_<n>``      ``foo_0_wkr_1``
``host_id``        ``[A-Za-z0-9-]``            ``h-1a2b3c4d``
=================  ==========================  =======================

Every id is also one token of a NATS subject, so it holds no dot, space, ``*`` or ``>``.

One function per subject, with the literal above it. ``…_subject`` is for appending,
``…_filter`` for reading.
"""

import re
from functools import lru_cache

from abaco_proto.events import (
    TAGS,
    Event,
    ExecutionAssigned,
    HostJoined,
    HostLost,
    NonceCreated,
    NonceDeleted,
    NonceRedeemed,
    TokenCreated,
    TokenRevoked,
    TokenUsed,
    WorkerRequested,
    WorkerStopRequested,
    type_of,
)

# -- ids ------------------------------------------------------------------------------------------

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
HOST_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$"
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

_ACTOR = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,63})_(?P<n>0|[1-9][0-9]{0,17})$")
MAX_DIGITS = 18
MAX_CACHED_IDS = 10_000
"""The size of the cache of execution ordinals, which a fold needs for every event."""

_NAME = re.compile(NAME_PATTERN)
_TENANT = re.compile(TENANT_PATTERN)


def is_name(text: str) -> bool:
    """Whether ``text`` may name an actor."""
    return _NAME.fullmatch(text) is not None


def is_tenant(text: str) -> bool:
    """Whether ``text`` may name a tenant."""
    return _TENANT.fullmatch(text) is not None


def is_actor_id(text: str) -> bool:
    """Whether ``text`` has the form of an actor id. The actor need not exist."""
    return _ACTOR.fullmatch(text) is not None


def actor_id(name: str, number: int) -> str:
    """The id of the ``number``-th actor (from 0) registered under ``name``."""
    return f"{name}_{number}"


def actor_name(actor_id: str) -> str:
    """The name in an actor id."""
    return actor_id.rpartition("_")[0]


def actor_number(actor_id: str) -> int:
    """The number in an actor id."""
    return int(actor_id.rpartition("_")[2])


def execution_id(actor_id: str, ordinal: int) -> str:
    """The id of the execution of the ``ordinal``-th message (from 0) of an actor."""
    return f"{actor_id}_exc_{ordinal}"


@lru_cache(maxsize=MAX_CACHED_IDS)
def execution_ordinal(execution_id: str, actor_id: str) -> int | None:
    """The ordinal in an execution id of this actor; None if it is not one."""
    return _number(execution_id, f"{actor_id}_exc_")


def worker_id(actor_id: str, number: int) -> str:
    """The id of the ``number``-th worker (from 0) ever requested for an actor."""
    return f"{actor_id}_wkr_{number}"


def worker_number(worker_id: str, actor_id: str) -> int | None:
    """The number in a worker id of this actor; None if it is not one."""
    return _number(worker_id, f"{actor_id}_wkr_")


def _number(text: str, prefix: str) -> int | None:
    """The number after a prefix. Not a regular expression, as folds call it for every event."""
    if not text.startswith(prefix):
        return None
    digits = text[len(prefix) :]
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS
    return int(digits) if plain and (digits[0] != "0" or digits == "0") else None


# -- subjects -------------------------------------------------------------------------------------

HOST_ACTOR_PREFIX = "_host-"
TOKEN_ACTOR_PREFIX = "_token-"  # noqa: S105 - a part of a subject
NONCE_ACTOR_PREFIX = "_nonce-"
CREDENTIAL_ACTOR_PREFIXES = (TOKEN_ACTOR_PREFIX, NONCE_ACTOR_PREFIX)
CREDENTIAL_TYPE_PREFIXES = ("token.", "nonce.")
"""Events about credentials, which are for auditors only."""

ADDRESSED = (WorkerRequested, WorkerStopRequested, ExecutionAssigned)
"""Events for one host: their subjects end in its id."""


# abaco.event.<tenant>.<actor_id>.<entity>.<verb>[.<host_id>]
def event_subject(tenant: str, event: Event) -> str:
    """The subject an event is appended to."""
    if isinstance(event, HostJoined | HostLost):
        actor_token = HOST_ACTOR_PREFIX + event.host_id
    elif isinstance(event, TokenCreated | TokenRevoked | TokenUsed):
        actor_token = TOKEN_ACTOR_PREFIX + event.token_id
    elif isinstance(event, NonceCreated | NonceRedeemed | NonceDeleted):
        actor_token = NONCE_ACTOR_PREFIX + event.nonce_id
    else:
        actor_token = event.actor_id  # type: ignore[attr-defined]
    subject = f"abaco.event.{tenant}.{actor_token}.{TAGS[type(event)]}"
    if isinstance(event, ADDRESSED):
        return f"{subject}.{event.host_id}"
    return subject


# abaco.event.>
def all_events_filter() -> str:
    """All events."""
    return "abaco.event.>"


# abaco.event.<tenant>.>
def tenant_filter(tenant: str) -> str:
    """All events of one tenant."""
    return f"abaco.event.{tenant}.>"


# abaco.event.<tenant>.<actor_id>.<entity>.<verb>[.<host_id>]
def type_filters(tenant: str, type_: str, actor_id: str = "*") -> list[str]:
    """All events of one type, addressed to a host or not."""
    subject = f"abaco.event.{tenant}.{actor_id}.{type_}"
    return [subject, f"{subject}.*"]


# abaco.event.<tenant>.<actor_id>.>
def history_filter(tenant: str, actor_id: str) -> str:
    """All events of one actor."""
    return f"abaco.event.{tenant}.{actor_id}.>"


# abaco.event.<tenant>.*.actor.*
def actors_filter(tenant: str) -> str:
    """The ``actor.*`` events of all actors of a tenant."""
    return f"abaco.event.{tenant}.*.actor.*"


# abaco.event.<tenant>.<actor_id>.actor.*
def actor_filter(tenant: str, actor_id: str) -> str:
    """The ``actor.*`` events of one actor, on which decisions about it are conditional."""
    return f"abaco.event.{tenant}.{actor_id}.actor.*"


# abaco.event.<tenant>.<actor_id>.<entity>.<verb>
def type_filter(tenant: str, actor_id: str, kind: type[Event]) -> str:
    """One actor's events of one type that is not addressed to a host."""
    return f"abaco.event.{tenant}.{actor_id}.{type_of(kind)}"


# abaco.event.<tenant>.<actor_id>.message.received
def inbox_filter(tenant: str, actor_id: str) -> str:
    """The messages of one actor."""
    return f"abaco.event.{tenant}.{actor_id}.message.received"


# abaco.event.<tenant>.<actor_id>.worker.>
def workers_filter(tenant: str, actor_id: str) -> str:
    """The events of one actor's workers."""
    return f"abaco.event.{tenant}.{actor_id}.worker.>"


# abaco.event.*.*.worker.lost, abaco.event.*.*.execution.halt_requested, …
def all_of_type_filter(kind: type[Event]) -> str:
    """All events of one type that is not addressed to a host."""
    return f"abaco.event.*.*.{type_of(kind)}"


# abaco.event.*.*.worker.requested.*
def worker_requests_filter() -> str:
    """All worker requests, for any actor on any host."""
    return "abaco.event.*.*.worker.requested.*"


# abaco.event.*.*.worker.requested.<host_id>
def host_requests_filter(host_id: str) -> str:
    """All worker requests for one host, of any tenant and actor."""
    return f"abaco.event.*.*.worker.requested.{host_id}"


# abaco.event.<tenant>.<actor_id>.worker.stop_requested.*
def stop_requests_filter(tenant: str, actor_id: str) -> str:
    """The stop requests for one actor's workers, on any host."""
    return f"abaco.event.{tenant}.{actor_id}.worker.stop_requested.*"


# abaco.event.<tenant>.<actor_id>.execution.>
def executions_filter(tenant: str, actor_id: str) -> str:
    """The events of one actor's executions."""
    return f"abaco.event.{tenant}.{actor_id}.execution.>"


# abaco.event.<tenant>.<actor_id>.execution.assigned.*
def assignments_filter(tenant: str, actor_id: str) -> str:
    """The assignments of one actor, to any host."""
    return f"abaco.event.{tenant}.{actor_id}.execution.assigned.*"


# abaco.event.*.*.*.*.<host_id>
def host_work_filter(host_id: str) -> str:
    """All events addressed to one host, of any tenant and actor."""
    return f"abaco.event.*.*.*.*.{host_id}"


# abaco.event.<tenant>._host-<host_id>.host.*
def host_filter(tenant: str, host_id: str) -> str:
    """The events of one host."""
    return f"abaco.event.{tenant}.{HOST_ACTOR_PREFIX}{host_id}.host.*"


# abaco.event.<tenant>.*.host.*
def hosts_filter(tenant: str) -> str:
    """The events of all hosts."""
    return f"abaco.event.{tenant}.*.host.*"


# abaco.event.<tenant>._token-<token_id>.token.*
def token_filter(tenant: str, token_id: str) -> str:
    """The events of one API token, on which decisions about it are conditional."""
    return f"abaco.event.{tenant}.{TOKEN_ACTOR_PREFIX}{token_id}.token.*"


# abaco.event.<tenant>.*.token.*
def tokens_filter(tenant: str) -> str:
    """The events of all API tokens of a tenant."""
    return f"abaco.event.{tenant}.*.token.*"


# abaco.event.<tenant>._nonce-<nonce_id>.nonce.*
def nonce_filter(tenant: str, nonce_id: str) -> str:
    """The events of one nonce, on which its uses are conditional."""
    return f"abaco.event.{tenant}.{NONCE_ACTOR_PREFIX}{nonce_id}.nonce.*"


# abaco.event.<tenant>.*.worker.>
def all_workers_filter(tenant: str) -> str:
    """The events of all workers."""
    return f"abaco.event.{tenant}.*.worker.>"


def actor_and_type(subject: str) -> tuple[str, str]:
    """The actor token of an event's subject, and its type, which may be unknown."""
    tokens = [*subject.split("."), *[""] * 5]
    return tokens[3], f"{tokens[4]}.{tokens[5]}"


def tenant_of(subject: str) -> str:
    """The tenant token of a subject; empty if there is none."""
    return [*subject.split(".", 3), "", ""][2]


# abaco.log.<tenant>.<actor_id>.<execution_id>
def output_subject(tenant: str, actor_id: str, execution_id: str) -> str:
    """The subject of the output chunks of one execution."""
    return f"abaco.log.{tenant}.{actor_id}.{execution_id}"


# $KV.ABACO_SNAPSHOTS.<name>
def snapshot_subject(name: str) -> str:
    """The subject of the newest snapshot of a fold."""
    return f"$KV.ABACO_SNAPSHOTS.{name}"


# abaco.heartbeat.<host_id>
def heartbeat_subject(host_id: str) -> str:
    """The subject of one host's heartbeats. Not stored."""
    return f"abaco.heartbeat.{host_id}"


# abaco.heartbeat.*
def heartbeats_filter() -> str:
    """The heartbeats of all hosts."""
    return "abaco.heartbeat.*"
