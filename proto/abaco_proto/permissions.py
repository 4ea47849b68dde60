"""The NATS permissions: one user per service, and one for clients that only read.

The right to append an event is the right to publish to its subject, so the server enforces
:data:`abaco_proto.events.OWNERS`. Subjects that are not listed here are denied.

Subjects do not protect replies and consumers:

* replies are sent to inboxes. Each service has its own inbox prefix, to which no other user may
  subscribe;
* any client that knows a consumer's name can use it. So the names of ephemeral consumers are
  random, and those of the hosts' durable ones end in a random part. Only the worker may list
  consumers, to find its own.
"""

from collections.abc import Iterator, Mapping

import msgspec

from abaco_proto import events as ev
from abaco_proto.events import OWNERS, Event, Owner, type_of
from abaco_proto.names import ADDRESSED, all_events_filter, heartbeats_filter
from abaco_proto.streams import ALL, EVENTS, LOGS, SNAPSHOTS, Stream

PROJECTOR = "projector"
READER = "reader"

ADDITIONAL_OWNERS: Mapping[type[Event], tuple[Owner, ...]] = {
    ev.WorkerStopRequested: (Owner.API,),
    ev.ExecutionHaltRequested: (Owner.SCHEDULER,),
}
"""Who else may append a type: the api, if a client requests it; the scheduler, if an actor is
deleted while its executions run."""


class Permissions(msgspec.Struct, frozen=True):
    """The subjects that a user may publish to, and those it may subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def users() -> dict[str, Permissions]:
    """All users, by name."""
    api = (
        *_event_subjects(Owner.API),
        *_stream_setup(),
        *_stream_reads(EVENTS),
        *_stream_reads(LOGS),
    )
    scheduler = (
        *_event_subjects(Owner.SCHEDULER),
        *SNAPSHOTS.subjects,
        *_stream_setup(),
        *_stream_reads(EVENTS),
        f"$JS.API.DIRECT.GET.{SNAPSHOTS.name}",
        f"$JS.API.DIRECT.GET.{SNAPSHOTS.name}.>",
    )
    worker = (
        *_event_subjects(Owner.WORKER),
        *LOGS.subjects,
        heartbeats_filter(),
        *_stream_setup(),
        *_stream_reads(EVENTS),
        "$JS.API.CONSUMER.NAMES.ABACO_EVENTS",
    )
    projector = (*_stream_setup(), *_stream_reads(EVENTS), *_stream_reads(LOGS))
    return {
        Owner.API: Permissions(api, _inbox(Owner.API)),
        Owner.SCHEDULER: Permissions(scheduler, (heartbeats_filter(), *_inbox(Owner.SCHEDULER))),
        Owner.WORKER: Permissions(worker, _inbox(Owner.WORKER)),
        PROJECTOR: Permissions(projector, _inbox(PROJECTOR)),
        READER: Permissions(
            ("$JS.API.INFO", "$JS.API.STREAM.NAMES", *_stream_info(), *_stream_reads(EVENTS)),
            (all_events_filter(), *_inbox(READER)),
        ),
    }


def inbox_prefix(user: str) -> str:
    """The prefix of a user's reply subjects: its own for a service, NATS' default for others."""
    private = user in (*Owner, PROJECTOR)
    return f"_INBOX_{user}" if private else "_INBOX"


def _inbox(user: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(user)}.>",)


def _event_subjects(owner: Owner) -> Iterator[str]:
    """The subjects of the events that a service owns, of any tenant and actor."""
    for kind, owner_of_type in OWNERS.items():
        if owner in (owner_of_type, *ADDITIONAL_OWNERS.get(kind, ())):
            host = ".*" if issubclass(kind, ADDRESSED) else ""
            yield f"abaco.event.*.*.{type_of(kind)}{host}"


def _stream_info() -> Iterator[str]:
    for stream in ALL:
        yield f"$JS.API.STREAM.INFO.{stream.name}"


def _stream_setup() -> Iterator[str]:
    """To create missing streams. It does not include the right to change one."""
    yield from _stream_info()
    for stream in ALL:
        yield f"$JS.API.STREAM.CREATE.{stream.name}"


def _message_get(stream: Stream) -> Iterator[str]:
    """To get single messages from the leader of the stream."""
    yield f"$JS.API.STREAM.MSG.GET.{stream.name}"


def _stream_reads(stream: Stream) -> Iterator[str]:
    """To get single messages, and to create and use consumers by their names."""
    yield from _message_get(stream)
    yield f"$JS.API.DIRECT.GET.{stream.name}"
    yield f"$JS.API.DIRECT.GET.{stream.name}.>"
    yield f"$JS.API.CONSUMER.CREATE.{stream.name}"
    yield f"$JS.API.CONSUMER.CREATE.{stream.name}.>"
    yield f"$JS.API.CONSUMER.DURABLE.CREATE.{stream.name}.*"
    yield f"$JS.API.CONSUMER.INFO.{stream.name}.*"
    yield f"$JS.API.CONSUMER.DELETE.{stream.name}.*"
    yield f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.*"
    yield f"$JS.ACK.{stream.name}.>"
    yield f"$JS.FC.{stream.name}.>"
