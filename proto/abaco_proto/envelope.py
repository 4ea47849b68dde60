"""The message of an event: its metadata in the headers, the event itself in the body.

====================  ============================================================================
header                content
====================  ============================================================================
``Nats-Msg-Id``       ``<tenant>.<id>``. The id is derived from the event's content, so that a retry
                      does not store a second event
``Abaco-Time``        when the event was decided; RFC 3339, UTC. Events are ordered by sequence
``Abaco-Causation``   the id of the event, or ``req-…`` of the request, that caused it; ``idem-…``
                      of a request with an idempotency key
``Abaco-Correlation`` the id of the first message or request of the chain
``Abaco-Revision``    the actor revision, if the event has one
``Abaco-Hops``        the number of subscriptions between the first message of the chain and this
                      event; absent if it is 0
``Abaco-Principal``   who did it, one of the forms below. Absent from events of versions before
                      it, and if nobody was logged in
``traceparent``       W3C trace context, if there is one
====================  ============================================================================

=========================  =======================================================================
principal                  who
=========================  =======================================================================
``user:<user>``            a user with a login
``token:<id>:<owner>``     an API token, and the user whom it acts for
``nonce:<id>``             a nonce
``service:<name>``         a client with a login of its own, or a service of Abaco: ``service:api``,
                           ``service:scheduler``, ``service:worker``
=========================  =======================================================================

In each name, characters other than ASCII letters, digits and ``-._~@:/`` are percent-encoded (RFC
3986), so that a principal is one word of ASCII.

The body is JSON, tagged with ``type``. Encoding is strict. Decoding never raises: what cannot be
decoded is returned as :class:`~abaco_proto.events.Unrecognized`, so that one bad event cannot stop
a service.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Union
from urllib.parse import quote

import msgspec

from abaco_proto import events as ev
from abaco_proto.names import NONCE_ACTOR_PREFIX, TOKEN_ACTOR_PREFIX, event_subject, tenant_of

ID = "Nats-Msg-Id"
TIME = "Abaco-Time"
CAUSATION = "Abaco-Causation"
CORRELATION = "Abaco-Correlation"
REVISION = "Abaco-Revision"
HOPS = "Abaco-Hops"
PRINCIPAL = "Abaco-Principal"
TRACEPARENT = "traceparent"
MAX_HOPS = 1_000_000

PLAIN_CHARACTERS = "@:/"
"""What :func:`principal_text` leaves as it is, besides what no percent-encoding changes."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event to be appended to ``subject``."""

    tenant: str
    subject: str
    event: ev.Event
    id: str
    time: datetime
    causation_id: str
    correlation_id: str
    principal: str | None = None
    traceparent: str | None = None
    hops: int = 0


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A condition of an append: the last event that matches ``filter`` has this sequence.

    Zero means that there is no such event. The condition is checked against the stored events, and
    in a cluster against appends in flight only if they have the same filter. So every append of an
    event that matches a filter must be conditional on that filter (docs/adr/0040).
    """

    filter: str
    sequence: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An event in the log. ``sequence`` counts from 1 over the whole stream.

    ``raw`` is the body as it is stored, for copies and the hash chain.
    """

    sequence: int
    subject: str
    tenant: str
    event: ev.Event
    id: str
    time: datetime
    causation_id: str = ""
    correlation_id: str = ""
    principal: str | None = None
    traceparent: str | None = None
    hops: int = 0
    raw: bytes = b""

    def matches(self, draft: Draft) -> bool:
        """Whether this is the record of ``draft``, and not of an equal draft of another writer."""
        return (
            self.id == draft.id
            and self.causation_id == draft.causation_id
            and self.event == draft.event
        )


# -- the body -------------------------------------------------------------------------------------

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTS: dict[str, Upcast] = {}
"""Per retired type, the function from its decoded JSON object to the object of the type that
replaced it, ``type`` included. Empty: no type was retired so far. Added fields need no entry: they
have defaults."""


def upcast(body: dict[str, Any], upcasts: dict[str, Upcast] = UPCASTS) -> dict[str, Any]:
    """Apply upcasts until the type is a current one, each type once at most."""
    seen: set[str] = set()
    while (kind := str(body.get("type"))) in upcasts and kind not in seen:
        seen.add(kind)
        body = upcasts[kind](body)
    return body


DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a decoder; the last one for deeply nested brackets."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[ev.Event] = msgspec.json.Decoder(Union[tuple(ev.OWNERS)])  # noqa: UP007


encode = _encoder.encode
"""The bytes of an event; equal events have equal bytes."""


def decode(raw: bytes) -> ev.Event:
    """The event in ``raw``, upcast if its type is retired; ``Unrecognized`` if it is unreadable."""
    try:
        return _decoder.decode(raw)
    except DECODE_ERRORS as error:
        return _decode_retired(raw, str(error))


def _decode_retired(raw: bytes, reason: str) -> ev.Event:
    try:
        body = msgspec.json.decode(raw, type=dict)
        if str(body.get("type")) in UPCASTS:
            return _decoder.decode(_encoder.encode(upcast(body)))
    except DECODE_ERRORS as error:
        reason = str(error)
    return ev.Unrecognized(raw=raw, reason=reason)


# -- the envelope ---------------------------------------------------------------------------------


def event_id(event: ev.Event, *, position: int = 0) -> str:  # noqa: C901, PLR0912 - one case per rule
    """The id of an event, derived from its content.

    ``position`` is for types whose content may occur more than once in a history: the sequence of
    the last event of that history that the appender has read.
    """
    verb = ev.TAGS[type(event)].partition(".")[2]
    match event:
        case ev.ActorRegistered() | ev.ActorDeleted():
            return f"{event.actor_id}.{verb}"
        case ev.ActorStateSet():
            return f"{event.actor_id}.{verb}.{event.version}"
        case ev.ActorSubscribed() | ev.ActorUnsubscribed():
            return f"{event.actor_id}.{verb}.{event.subscription_id}"
        case ev.MessageReceived():
            return f"{event.execution_id}.{verb}"
        case ev.InboxPurged():
            return f"{event.actor_id}.{verb}.{event.up_to_ordinal}"
        case (
            ev.ExecutionAssigned()
            | ev.ExecutionStarted()
            | ev.ExecutionFinished()
            | ev.ExecutionFailed()
        ):
            return f"{event.execution_id}.{verb}.{event.attempt}"
        case ev.ExecutionAbandoned() | ev.ExecutionRetryRequested():
            return f"{event.execution_id}.{verb}.{event.attempts}"
        case ev.ExecutionHaltRequested():
            return f"{event.execution_id}.{verb}"
        case (
            ev.WorkerRequested()
            | ev.WorkerStopRequested()
            | ev.WorkerReady()
            | ev.WorkerFailed()
            | ev.WorkerStopped()
            | ev.WorkerLost()
        ):
            return f"{event.worker_id}.{verb}"
        case ev.ActorUpdated():
            return f"{event.actor_id}.{verb}.{position}"
        case ev.PermissionSet():
            return f"{event.actor_id}.permission.{position}"
        case ev.TokenCreated() | ev.TokenRevoked():
            return f"{TOKEN_ACTOR_PREFIX}{event.token_id}.{verb}"
        case ev.TokenUsed():
            return f"{TOKEN_ACTOR_PREFIX}{event.token_id}.{verb}.{event.date}"
        case ev.NonceCreated() | ev.NonceDeleted():
            return f"{NONCE_ACTOR_PREFIX}{event.nonce_id}.{verb}"
        case ev.NonceRedeemed():
            return f"{NONCE_ACTOR_PREFIX}{event.nonce_id}.{verb}.{event.use}"
        case ev.HostJoined() | ev.HostLost():
            return f"{event.host_id}.{verb}.{position}"
    raise AssertionError(f"no id rule for {ev.type_of(event)}")


def draft(  # noqa: PLR0913 - an envelope has this many fields
    event: ev.Event,
    *,
    tenant: str,
    time: datetime,
    causation_id: str,
    correlation_id: str | None = None,
    position: int = 0,
    principal: str | None = None,
    traceparent: str | None = None,
    hops: int = 0,
) -> Draft:
    """Put an event into an envelope. Without a correlation id, it is the first of its chain."""
    own_id = event_id(event, position=position)
    return Draft(
        tenant=tenant,
        subject=event_subject(tenant, event),
        event=event,
        id=own_id,
        time=time,
        causation_id=causation_id,
        correlation_id=correlation_id or own_id,
        principal=principal,
        traceparent=traceparent,
        hops=hops,
    )


def principal_text(kind: str, *names: str) -> str:
    """The text of a principal: its kind and its names, in one word of ASCII."""
    return ":".join((kind, *(quote(name, safe=PLAIN_CHARACTERS) for name in names)))


def service_principal(service: ev.Owner) -> str:
    """The principal of what a service of Abaco decides itself."""
    return principal_text("service", service)


def to_headers(draft: Draft) -> dict[str, str]:
    """The headers of a draft."""
    headers = {
        ID: f"{draft.tenant}.{draft.id}",
        TIME: format_time(draft.time),
        CAUSATION: draft.causation_id,
        CORRELATION: draft.correlation_id,
    }
    revision = getattr(draft.event, "revision", None)
    if revision is not None:
        headers[REVISION] = str(revision)
    if draft.hops:
        headers[HOPS] = str(draft.hops)
    if draft.principal is not None:
        headers[PRINCIPAL] = draft.principal
    if draft.traceparent is not None:
        headers[TRACEPARENT] = draft.traceparent
    return headers


def from_message(
    sequence: int,
    subject: str,
    headers: Mapping[str, str] | None,
    body: bytes,
    read: Callable[[bytes], ev.Event] = decode,
) -> Recorded:
    """The event in a stored message. Never raises: missing or damaged headers get a default.

    ``read`` decodes the body; use :func:`skip_body` if only the headers are needed.
    """
    get = (headers or {}).get
    tenant = tenant_of(subject)
    hops = get(HOPS)
    return Recorded(
        sequence=sequence,
        subject=subject,
        tenant=tenant,
        event=read(body),
        id=get(ID, "").removeprefix(f"{tenant}."),
        time=parse_time(get(TIME, "")),
        causation_id=get(CAUSATION, ""),
        correlation_id=get(CORRELATION, ""),
        principal=get(PRINCIPAL),
        traceparent=get(TRACEPARENT),
        hops=0 if hops is None else _hops(hops),
        raw=body,
    )


def skip_body(_: bytes) -> ev.Event:
    """The event for a body that is not decoded."""
    return _SKIPPED


_SKIPPED = ev.Unrecognized(raw=b"", reason="not read")


def unrecognized_warning(recorded: Recorded) -> str | None:
    """The log line about an event that cannot be decoded; None if it can."""
    if recorded.event is _SKIPPED or not isinstance(recorded.event, ev.Unrecognized):
        return None
    where = f"event {recorded.sequence} of {recorded.subject[:200]!r}"
    return (
        f"{where} is skipped: it cannot be decoded ({recorded.event.reason[:200]!r}). Run a version"
        " of Abaco that knows this event type; see docs/how-to/outages.md"
    )


def _hops(text: str) -> int:
    """The count in a header; a damaged one is ``MAX_HOPS``, which ends the chain."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else MAX_HOPS


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds: ``2026-01-02T03:04:05.000006Z``."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The time in an RFC 3339 text, in UTC; the epoch if the text is not a time."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            return time.replace(tzinfo=UTC)
        return time if time.tzinfo is UTC else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return EPOCH
