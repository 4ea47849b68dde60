"""Operations: the table that both the routes and the OpenAPI description are made from."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from abaco_proto.events import Event

KEY = "Idempotency-Key"
MAX_KEY = 255
KEY_PATTERN = "^[!-~]([ -~]*[!-~])?$"

Endpoint = Callable[..., Awaitable[Response]]
"""Called with the service and the request; for a command also with the cause of its events."""

RepeatedResponse = Callable[..., Awaitable[Response]]
"""Called with the service, the request, and the recorded event of the first request."""


class QueryParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a query string, or a header, with its JSON schema."""

    name: str
    description: str
    schema: dict[str, Any]
    where: Literal["query", "header"] = "query"


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation answers a repeated request with an ``Idempotency-Key``.

    ``event`` is the type of the one event that the operation leads to. ``response`` makes the
    response of the first request from that event.
    """

    event: type[Event]
    response: RepeatedResponse


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    A command needs the log, a query the read models, a probe nothing. ``result`` is the type of the
    result, ``body`` that of the request's parameters. ``any_query`` describes query parameters
    whose names the client chooses. ``media`` lists content types of responses besides JSON. Every
    POST that is a command has ``repeated``.
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
    repeated: Repeated | None = None


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
