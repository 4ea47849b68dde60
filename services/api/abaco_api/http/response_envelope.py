"""The envelope every answer comes in: ``status``, ``msg``, ``result``, ``version``."""

from typing import Any, Generic, Literal, TypeVar

import msgspec
from starlette.responses import Response

from abaco_api import VERSION
from abaco_api.http.content_coding import CODINGS
from abaco_api.http.http_errors import BodyTooLarge, TimedOut, UnsupportedCoding, answer_of
from abaco_proto.errors import AbacoError

T = TypeVar("T")

SEQUENCE = "Abaco-Sequence"
MEDIA_TYPE = "application/json"
REQUEST_DONE = "The request was successful"

_encode = msgspec.json.Encoder().encode


class Success(msgspec.Struct, Generic[T], kw_only=True):
    """An answer to a request that worked."""

    status: Literal["success"] = "success"
    msg: str
    result: T
    version: str = VERSION


class Failure(msgspec.Struct, kw_only=True):
    """An answer to a request that did not: ``msg`` is for a person, ``error`` for a program."""

    status: Literal["error"] = "error"
    msg: str
    error: str
    result: Any = None
    version: str = VERSION


def success(
    result: Any,
    msg: str = REQUEST_DONE,
    *,
    status: int = 200,
    sequence: int | None = None,
) -> Response:
    """The answer to a request that worked; ``sequence`` is where its event stands in the log."""
    headers = {} if sequence is None else {SEQUENCE: str(sequence)}
    return Response(success_body(result, msg), status, headers, MEDIA_TYPE)


def success_body(result: Any, msg: str = REQUEST_DONE) -> bytes:
    """The bytes of such an answer."""
    return _encode(Success(msg=msg, result=result))


def failure(
    status: int,
    error: str,
    msg: str,
    *,
    result: Any = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer to a request that did not work."""
    return Response(failure_body(error, msg, result), status, headers, MEDIA_TYPE)


def failure_body(error: str, msg: str, result: Any = None) -> bytes:
    """The bytes of such an answer."""
    return _encode(Failure(msg=msg, error=error, result=result))


def failure_of(error: AbacoError) -> Response:
    """The answer that an error of ours is."""
    status, slug = answer_of(error)
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    if isinstance(error, BodyTooLarge | TimedOut):
        headers["Connection"] = "close"
    if isinstance(error, UnsupportedCoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    return failure(status, slug, str(error), headers=headers)
