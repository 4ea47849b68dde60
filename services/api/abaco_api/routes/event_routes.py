"""Routes of events: pages, streams, and the hash chain."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.contract.operation import Operation, QueryParameter
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.domain.views import Row
from abaco_api.http.content_negotiation import accept
from abaco_api.http.paged_response import link_next, page
from abaco_api.http.parameters import JSON, checked_actor_id, nothing_else, query_parameters
from abaco_api.http.response_envelope import success
from abaco_api.queries.freshness import EVERYTHING
from abaco_api.streams.domain.event_result import EventResult, HeadResult, SealedEventResult
from abaco_api.streams.events import event_query as q
from abaco_api.streams.events.event_stream import MEDIA_TYPE
from abaco_proto.errors import Unknown


async def list_events(api: Service, request: Request) -> Response:
    """A page of history, in the order of the log; with Accept: text/event-stream, a stream.

    It shows the events that you may read, in a page only those of actors that exist.
    A page ends at `limit` events, or after the one that makes it longer than 8 MiB. When there
    is more, the header Abaco-Next holds the `after` of the next page, and Link its address. A
    stream gives history from Last-Event-ID or `after` on (without either: from now on), then what
    happens, each event once.
    """
    return await _events(api, request)


async def list_actor_events(api: Service, request: Request) -> Response:
    """The same of one actor, deleted or not."""
    return await _events(api, request, checked_actor_id(request.path_params["actor_id"]))


async def _events(api: Service, request: Request, actor_id: str | None = None) -> Response:
    query = query_parameters(request)
    asked = q.parse_query(query, request.headers.get(q.RESUME), actor_id)
    access, principal = api.access, request.state.principal
    source = asked.selection.actor_id
    if source is not None and not await access.may_read(principal, source):
        raise Unknown(f"actor_id: there is no actor {source!r}")
    if accept(request.headers.getlist("accept")).prefers(MEDIA_TYPE, JSON):
        nothing_else({name: query[name] for name in query if name == "limit"})
        if actor_id is not None:
            await api.check_registered(actor_id)
        return api.streams.open(
            api.feed,
            asked.selection,
            after=asked.after,
            before=asked.before,
            may_read=None
            if access.reads_everything(principal)
            else lambda source: access.may_read(principal, source),
        )
    await api.fresh(request, EVERYTHING)
    only = await access.readable(principal) if source is None else None
    credentials = access.reads_everything(principal)

    async def fetch(after_row: Row | None, limit: int) -> Sequence[Row]:
        return await api.models.events(
            asked, limit, after_row=after_row, only=only, credentials=credentials
        )

    answer, read = await page(fetch, views.event, asked.limit, long=api.long_responses)
    if actor_id is not None and not read.count:
        await api.models.known(actor_id)
    if read.more and read.last is not None:
        link_next(answer, request, query, after=read.last["seq"])
    return answer


async def show(api: Service, request: Request) -> Response:
    """One event of the verified copy, with its hash."""
    nothing_else(query_parameters(request))
    text = request.path_params["sequence"]
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Unknown(f"sequence: there is no event {text[:100]!r}")
    await _fresh(api, request)
    row = await api.models.event(int(text))
    if not await api.access.may_read(request.state.principal, row["actor_id"]):
        raise Unknown(f"sequence: there is no event {int(text)}")
    return success(views.sealed_event(row))


async def head(api: Service, request: Request) -> Response:
    """The end of the verified copy: note it down, and later nobody can have changed the past."""
    nothing_else(query_parameters(request))
    await _fresh(api, request)
    return success(views.head(await api.models.head()))


async def _fresh(api: Service, request: Request) -> None:
    await api.fresh(request, EVERYTHING)


def _parameters(names: Sequence[str]) -> tuple[QueryParameter, ...]:
    return tuple(
        QueryParameter(name=name, description=DESCRIPTIONS[name], schema=SCHEMAS[name])
        for name in names
    )


_SEQUENCE = {"type": "integer", "minimum": 0, "maximum": q.MAX_SEQUENCE}
_TIME = {"type": "string", "format": "date-time"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "after": _SEQUENCE,
    "before": _SEQUENCE,
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": q.MOST_EVENTS,
        "default": q.DEFAULT_EVENTS,
    },
    "type": {"type": "string", "default": "*"},
    "principal": {"type": "string"},
    "actor": {"type": "string", "pattern": "^(_host-)?[A-Za-z0-9][A-Za-z0-9_-]*$"},
    "since": _TIME,
    "until": _TIME,
}
DESCRIPTIONS = {
    "after": "Only events with a higher sequence.",
    "before": "Only events with a lower sequence.",
    "limit": "At most this many on a page; not of a stream.",
    "type": "A type, e.g. execution.finished; * stands for any characters.",
    "principal": "Only what this principal did, e.g. user:anna or token:AbCd1234:anna; * stands "
    "for any characters: token:*:anna.",
    "actor": "Only events of this actor, or of this host (_host-<id>).",
    "since": "Only events of this time or later, as their appenders had it (RFC 3339).",
    "until": "Only events before this time.",
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/events",
        endpoint=list_events,
        kind="query",
        summary="Read the log, or subscribe to it",
        result=list[EventResult],
        query=_parameters((*q.PARAMETERS, "actor")),
        errors=(429,),
        media=(MEDIA_TYPE,),
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}/events",
        endpoint=list_actor_events,
        kind="query",
        summary="Read an actor's history, or subscribe to it",
        result=list[EventResult],
        query=_parameters(q.PARAMETERS),
        errors=(429,),
        media=(MEDIA_TYPE,),
    ),
    Operation(
        method="GET",
        path="/events/{sequence}",
        endpoint=show,
        kind="query",
        summary="Show an event with its hash",
        result=SealedEventResult,
    ),
    Operation(
        method="GET",
        path="/audit/head",
        endpoint=head,
        kind="query",
        summary="Show the end of the chain of hashes",
        result=HeadResult,
    ),
)
