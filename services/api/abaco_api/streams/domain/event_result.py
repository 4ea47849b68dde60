"""An event as JSON: in pages, in streams, and in messages to actors that subscribe."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from abaco_proto.envelope import Recorded, encode, format_time
from abaco_proto.names import actor_and_type

NULL = msgspec.Raw(b"null")


class EventResult(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its place in the log, its envelope, and its body as it was stored.

    ``data`` is null when the stored bytes are no JSON.
    """

    seq: Annotated[int, Meta(description="Its place in the log.", ge=1)]
    time: str
    type: str
    tenant: str
    actor_id: Annotated[str, Meta(description="Whose it is; _host-<id> for facts about a host.")]
    id: str
    causation_id: Annotated[str, Meta(description="The event, or req-… the request, before it.")]
    correlation_id: Annotated[str, Meta(description="What all events of its chain have in common.")]
    hops: Annotated[int, Meta(description="Subscriptions between it and its chain's start.", ge=0)]
    principal: Annotated[str | None, Meta(description="Who did it; null if nobody was logged in.")]
    data: Any


class SealedEventResult(EventResult, frozen=True, kw_only=True):
    """The same with its link in the chain of hashes."""

    hash: Annotated[
        str, Meta(description="SHA-256 over this event and the hash before it, in hex.")
    ]


class HeadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the chain: what an auditor notes down. All zero while nothing is recorded."""

    sequence: int
    hash: str
    time: str | None


def event_result(recorded: Recorded) -> EventResult:
    """An event from the log."""
    actor_id, kind = actor_and_type(recorded.subject)
    return EventResult(
        seq=recorded.sequence,
        time=format_time(recorded.time),
        type=kind,
        tenant=recorded.tenant,
        actor_id=actor_id,
        id=recorded.id,
        causation_id=recorded.causation_id,
        correlation_id=recorded.correlation_id,
        hops=recorded.hops,
        principal=recorded.principal,
        data=data_of(recorded.raw or encode(recorded.event)),
    )


def data_of(body: bytes) -> msgspec.Raw:
    """A stored body as a JSON value on one line; null when it is none."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NULL
    if b"\n" in body or b"\r" in body:
        body = msgspec.json.format(body, indent=-1)
    return msgspec.Raw(body)
