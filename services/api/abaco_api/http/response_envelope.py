"""The envelope of every JSON response: ``status``, ``msg``, ``result``, ``version``."""

from typing import Any, Generic, Literal, TypeVar

import msgspec
from starlette.responses import Response

from abaco_api import VERSION
from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.api_errors import BodyTooLarge, TimedOut, UnsupportedCoding
from abaco_api.http.content_coding import CODINGS
from abaco_api.http.http_errors import answer_of
from abaco_proto.errors import AbacoError

T = TypeVar("T")

SEQUENCE = "Abaco-Sequence"
MEDIA_TYPE = "application/json"
REQUEST_DONE = "The request was successful"

_encode = msgspec.json.Encoder().encode


class Success(msgspec.Struct, Generic[T], kw_only=True):
    """The envelope of a request that succeeded."""

    status: Literal["success"] = "success"
    msg: str
    result: T
    version: str = VERSION


class Failure(msgspec.Struct, kw_only=True):
    """The envelope of a request that failed: ``msg`` is for people, ``error`` for programs."""

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
    """The response to a request that succeeded; ``sequence`` is that of its event in the log."""
    headers = {} if sequence is None else {SEQUENCE: str(sequence)}
    return Response(_encode(Success(msg=msg, result=result)), status, headers, MEDIA_TYPE)


def success_body(result: Any, msg: str = REQUEST_DONE) -> bytes:
    """The bytes of the envelope of a request that succeeded."""
    return _encode(Success(msg=msg, result=result))


def failure(
    status: int,
    error: str,
    msg: str,
    *,
    result: Any = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The response to a request that failed."""
    return Response(failure_body(error, msg, result), status, headers, MEDIA_TYPE)


def failure_body(error: str, msg: str, result: Any = None) -> bytes:
    """The bytes of the envelope of a request that failed."""
    return _encode(Failure(msg=msg, error=error, result=result))


def failure_of(error: AbacoError) -> Response:
    """The response to an error of ours."""
    status, slug = answer_of(error)
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    if isinstance(error, BodyTooLarge | TimedOut):
        headers["Connection"] = "close"
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, UnsupportedCoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    return failure(status, slug, str(error), headers=headers)
