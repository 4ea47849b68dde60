"""Request bodies and query strings to plain parameters; JSON and both kinds of forms."""

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect, Request

from abaco_api.errors import BadParameter, BodyTooLarge, UnsupportedBody
from abaco_api.multipart import fields
from abaco_proto.errors import Malformed

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
KINDS = (JSON, URLENCODED, MULTIPART)

MAX_FIELDS = 1000
MAX_DEPTH = 64
"""Deeper JSON is refused: every later reader of the log must be able to read it, too."""

DISCARD_BYTES = 16 * 1024 * 1024
DISCARD_SECONDS = 1.0


class Parameters(msgspec.Struct, frozen=True):
    """What a request says. In a form every value is text, and is read as what it stands for."""

    values: dict[str, Any]
    form: bool


async def read_parameters(request: Request, limit: int) -> Parameters:
    """The parameters in a body of at most ``limit`` bytes; none when there is no body.

    Raises:
        BodyTooLarge: the body is longer.
        UnsupportedBody: it is of a content type that is not one of ``KINDS``.
        Malformed: it is not what its content type says.
    """
    raw = await read_body(request, limit)
    if not raw:
        return Parameters({}, form=False)
    content_type = request.headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            return Parameters(_json_object(raw), form=False)
        case "application/x-www-form-urlencoded":
            return Parameters(text_parameters(raw), form=True)
        case "multipart/form-data":
            return Parameters(unique(fields(content_type, raw)), form=True)
        case kind:
            raise UnsupportedBody(
                f"Content-Type: expected one of {', '.join(KINDS)}, got {kind[:100]!r}"
            )


def query_parameters(request: Request) -> dict[str, str]:
    """The query string's parameters, each named once."""
    return text_parameters(request.scope["query_string"])


def text_parameters(raw: bytes) -> dict[str, str]:
    """The parameters in URL encoding."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except UnicodeDecodeError:
        raise Malformed("the parameters are not UTF-8") from None
    except ValueError:
        raise Malformed(f"more than {MAX_FIELDS} parameters") from None
    return unique(pairs)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dictionary; a name that comes twice is refused."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise BadParameter(twice[:100], "is there more than once")
    return values


def decode_json(raw: bytes | str, what: str) -> Any:
    """The JSON value in ``raw``; strict about encoding, depth and repeated keys."""
    try:
        value = msgspec.json.decode(raw)
        json.loads(raw, object_pairs_hook=unique)
    except RecursionError:
        raise Malformed(f"{what} is nested too deeply") from None
    except UnicodeError:
        raise Malformed(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {error}") from None
    if _deeper_than(value, MAX_DEPTH):
        raise Malformed(f"{what} is nested too deeply: at most {MAX_DEPTH} levels")
    return value


def _json_object(raw: bytes) -> dict[str, Any]:
    value = decode_json(raw, "the body")
    if not isinstance(value, dict):
        raise Malformed(f"the body: expected a JSON object, got {_json_type(value)}")
    return value


def _json_type(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [v for item in level for v in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


async def read_body(request: Request, limit: int) -> bytes:
    """The body as it came. Raises ``BodyTooLarge`` when it has more than ``limit`` bytes."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit and "expect" in request.headers:
        raise BodyTooLarge(f"the body: {announced} bytes, at most {limit}")
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            await _discard(request, more=more)
            raise BodyTooLarge(f"the body: more than {limit} bytes")
    return b"".join(parts)


async def _discard(request: Request, *, more: bool) -> None:
    """Take what still comes, within reason: a client hears an answer only when it may finish."""
    size = 0
    with suppress(asyncio.TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and size < DISCARD_BYTES:
                message = await request.receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
