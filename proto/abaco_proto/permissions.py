"""Who may say and hear what on NATS: one user per service, and one for people who only read.

Subjects hold the rules. The right to append an event is the right to publish to its subject, so
that :data:`abaco_proto.events.OWNERS` is enforced by the server; what is not named here is denied.

Two things are not subjects, and are kept apart by names that cannot be guessed:

* answers go to inboxes; each service has its own prefix, which no other user may listen to;
* a consumer belongs to whoever knows its name. Followers' names are random, a host's durable
  one ends in a random part, and only the worker may list them: it has to find its own again.
"""

from collections.abc import Iterator, Mapping

import msgspec

from abaco_proto import events as ev
from abaco_proto.events import OWNERS, Event, Owner, type_of
from abaco_proto.streams import ALL, EVENTS, LOGS, SNAPSHOTS, Stream
from abaco_proto.subjects import ADDRESSED, all_events_filter, heartbeats_filter

PROJECTOR = "projector"
READER = "reader"

ALSO: Mapping[type[Event], tuple[Owner, ...]] = {
    ev.WorkerStopRequested: (Owner.API,),
    ev.ExecutionHaltRequested: (Owner.SCHEDULER,),
}
"""Who else may append a type: the api, when a person asks for it; the scheduler, when an actor is
deleted while its executions run."""


class Permissions(msgspec.Struct, frozen=True):
    """The subjects a user may publish to, and those it may subscribe to; nothing else."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def users() -> dict[str, Permissions]:
    """All users, by name."""
    api = (
        *_appending(Owner.API),
        *_preparing(),
        *_reading(EVENTS),
        *_reading(LOGS),
    )
    scheduler = (
        *_appending(Owner.SCHEDULER),
        *SNAPSHOTS.subjects,
        *_preparing(),
        *_reading(EVENTS),
        f"$JS.API.DIRECT.GET.{SNAPSHOTS.name}",
        f"$JS.API.DIRECT.GET.{SNAPSHOTS.name}.>",
    )
    worker = (
        *_appending(Owner.WORKER),
        *LOGS.subjects,
        heartbeats_filter(),
        *_preparing(),
        *_reading(EVENTS),
        "$JS.API.CONSUMER.NAMES.ABACO_EVENTS",
    )
    projector = (*_preparing(), *_reading(EVENTS), *_reading(LOGS))
    return {
        Owner.API: Permissions(api, _inbox(Owner.API)),
        Owner.SCHEDULER: Permissions(scheduler, (heartbeats_filter(), *_inbox(Owner.SCHEDULER))),
        Owner.WORKER: Permissions(worker, _inbox(Owner.WORKER)),
        PROJECTOR: Permissions(projector, _inbox(PROJECTOR)),
        READER: Permissions(
            ("$JS.API.INFO", "$JS.API.STREAM.NAMES", *_looking(), *_reading(EVENTS)),
            (all_events_filter(), *_inbox(READER)),
        ),
    }


def inbox_prefix(user: str) -> str:
    """Where answers to a user go: the services' to places of their own, the rest as usual."""
    private = user in (*Owner, PROJECTOR)
    return f"_INBOX_{user}" if private else "_INBOX"


def _inbox(user: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(user)}.>",)


def _appending(owner: Owner) -> Iterator[str]:
    """The subjects of the events that a service owns, of whatever tenant and actor."""
    for kind, first in OWNERS.items():
        if owner in (first, *ALSO.get(kind, ())):
            host = ".*" if issubclass(kind, ADDRESSED) else ""
            yield f"abaco.event.*.*.{type_of(kind)}{host}"


def _looking() -> Iterator[str]:
    for stream in ALL:
        yield f"$JS.API.STREAM.INFO.{stream.name}"


def _preparing() -> Iterator[str]:
    """What makes the streams where they are missing; one that is there stays as it is."""
    yield from _looking()
    for stream in ALL:
        yield f"$JS.API.STREAM.CREATE.{stream.name}"


def _single(stream: Stream) -> Iterator[str]:
    """Single messages, as the leader of the stream has them."""
    yield f"$JS.API.STREAM.MSG.GET.{stream.name}"


def _reading(stream: Stream) -> Iterator[str]:
    """Single messages, and consumers of one's own, which are asked for and answered by name."""
    yield from _single(stream)
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
