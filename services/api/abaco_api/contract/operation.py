"""Operations: one table that the routes and their published description are both made from."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abaco_proto.envelope import Recorded
from abaco_proto.events import Event

KEY = "Idempotency-Key"
MAX_KEY = 255
KEY_PATTERN = "^[!-~]([ -~]*[!-~])?$"

Endpoint = Callable[[Request], Awaitable[Response]]


class QueryParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a query string, or a header, with its JSON schema."""

    name: str
    description: str
    schema: dict[str, Any]
    where: Literal["query", "header"] = "query"


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """What makes an operation heed ``Idempotency-Key``: how the one event that it leads to is told.

    ``event`` is its type, ``answer`` gives the answer that the request had, or would have had.
    """

    event: type[Event]
    answer: Callable[[Request, Recorded], Awaitable[Response]]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    ``kind`` says what it needs: a command the log, a query the read models, a probe nothing.
    ``result`` is the type of the answer's result, ``body`` that of the request's parameters.
    ``any_query`` is said of query parameters with names of the client's choice. ``media`` are the
    content types it can answer with beside JSON. Every POST that is a command has ``once``.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    endpoint: Endpoint
    kind: Literal["command", "query", "probe"]
    summary: str
    result: Any
    status: int = 200
    body: type[msgspec.Struct] | None = None
    query: tuple[QueryParameter, ...] = ()
    any_query: str = ""
    errors: tuple[int, ...] = ()
    unready: Any = None
    media: tuple[str, ...] = ()
    once: Once | None = None


PAST = (
    QueryParameter(
        name="as_of",
        description="A moment of the past to answer for: a sequence of the log, or a time "
        "(RFC 3339), which means the last event that is not later.",
        schema={
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
                {"type": "string", "format": "date-time"},
            ]
        },
    ),
)


def paging(most: int, default: int) -> tuple[QueryParameter, ...]:
    """``limit`` and ``offset`` of a long list."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    offset = {"type": "integer", "minimum": 0, "maximum": 10**15, "default": 0}
    return (
        QueryParameter(name="limit", description="At most this many.", schema=limit),
        QueryParameter(name="offset", description="How many to skip.", schema=offset),
    )
