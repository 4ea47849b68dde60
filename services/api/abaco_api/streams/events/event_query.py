"""The query of a request for events: parsing and its rules."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from abaco_api.api_errors import BadParameter
from abaco_api.domain.wildcard import ANY
from abaco_api.http.parameters import nothing_else, whole_number
from abaco_api.streams.domain.selection import Selection, type_matches
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import PLAIN_CHARACTERS
from abaco_proto.names import HOST_ACTOR_PREFIX

MOST_EVENTS = 10_000
DEFAULT_EVENTS = 100
MAX_SEQUENCE = 10**18 - 1
MAX_TYPE = 255
"""Patterns are cached with what they match, so their length is limited."""

MAX_PRINCIPAL = 4000

RESUME = "Last-Event-ID"

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, after ``after`` and before ``before``, and at most how many on a page."""

    selection: Selection
    after: int | None
    before: int | None
    limit: int


PARAMETERS = ("after", "before", "limit", "type", "principal", "since", "until")


def parse_query(
    query: Mapping[str, str], resume: str | None, actor_id: str | None = None
) -> EventQuery:
    """Parse a query string, and the header ``Last-Event-ID``, which overrides ``after``.

    ``actor_id`` is the one in the path; without it, the parameter ``actor`` may name one.
    """
    known = PARAMETERS if actor_id is not None else (*PARAMETERS, "actor")
    nothing_else(dict(query), *known)
    after = _sequence("after", query.get("after"))
    return EventQuery(
        selection=Selection(
            type=_type(query.get("type", ANY)),
            actor_id=actor_id or _actor(query.get("actor")),
            principal=_principal(query.get("principal")),
            since=_moment("since", query),
            until=_moment("until", query),
        ),
        after=_sequence(RESUME, resume) if resume else after,
        before=_sequence("before", query.get("before")),
        limit=whole_number(
            "limit", query.get("limit", str(DEFAULT_EVENTS)), least=1, most=MOST_EVENTS
        ),
    )


def moment(name: str, text: str) -> datetime:
    """A time in UTC; a space stands for the ``+`` that a query string makes one of.

    An offset can move a time out of the years 1 to 9999, which neither we nor Postgres can hold.
    """
    text = re.sub(r" (?=\d\d:\d\d$)", "+", text)
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise BadParameter(name, "expected a time in the years 1 to 9999 in UTC") from None
    except ValueError:
        pass
    raise BadParameter(name, "expected a time as in RFC 3339, e.g. 2026-01-02T03:04:05Z")


def _moment(name: str, query: Mapping[str, str]) -> datetime | None:
    return moment(name, query[name]) if name in query else None


def _sequence(name: str, text: str | None) -> int | None:
    return None if text is None else whole_number(name, text, least=0, most=MAX_SEQUENCE)


def _type(text: str) -> str:
    if len(text) > MAX_TYPE or not any(type_matches(text, kind) for kind in ev.TYPES):
        page = "docs/reference/events.md"
        what = f"no event is of this type; expected one of {page}, or a part of it with *"
        raise BadParameter("type", what)
    return text


def _principal(text: str | None) -> str | None:
    """A principal, or a part of one with ``*``; what needs percent-encoding gets it."""
    if text is None:
        return None
    if (":" not in text and ANY not in text) or len(text) > MAX_PRINCIPAL:
        raise BadParameter("principal", "expected <kind>:<name>, or a part of it with *")
    return quote(text, safe=PLAIN_CHARACTERS + ANY + "%")


def _actor(text: str | None) -> str | None:
    if text is None or names.is_actor_id(text):
        return text
    host_id = text.removeprefix(HOST_ACTOR_PREFIX)
    if host_id != text and re.fullmatch(names.HOST_PATTERN, host_id):
        return text
    raise BadParameter("actor", f"expected an actor's id, or {HOST_ACTOR_PREFIX}<host_id>")
