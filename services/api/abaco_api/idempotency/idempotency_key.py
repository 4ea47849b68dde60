"""The idempotency key of a request, and its form in the log.

The ``Abaco-Causation`` header of an event that a request with a key has led to is
``idem-<scope>-<digest>-<attempt>``. The scope is the tenant, the method, the path and the key of
the client. The digest is of the query and the parameters. Both are SHA-256, cut to 128 bits, so
the log holds no key in clear. The attempt is random: it distinguishes two processes that execute
the same request at the same time.
"""

import hashlib
import re
from typing import Any

import msgspec
from starlette.requests import Request

from abaco_api.api_errors import BadParameter
from abaco_api.api_settings import ApiSettings
from abaco_api.contract.operation import KEY, MAX_KEY
from abaco_api.http.request_body import read_parameters
from abaco_proto.envelope import Recorded

PREFIX = "idem-"
_HEX_DIGITS = 32
_encoder = msgspec.json.Encoder(order="sorted")
_DIGEST = rf"[0-9a-f]{{{_HEX_DIGITS}}}"
_PRINTABLE = re.compile(rf"[ -~]{{1,{MAX_KEY}}}")
_CAUSATION_ID = re.compile(rf"{PREFIX}({_DIGEST})-({_DIGEST})-[0-9a-f]{{1,16}}")


class AlreadyExecuted(Exception):
    """A request with this key was executed before; ``recorded`` is the event it led to."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(recorded.id)
        self.recorded = recorded


class IdempotencyKey(msgspec.Struct, frozen=True):
    """The key of one request: its scope, and the digest of its parameters."""

    scope: str
    digest: str

    def causation_id(self, attempt: str) -> str:
        """The causation id of the events of an attempt to execute the request."""
        return f"{PREFIX}{self.scope}-{self.digest}-{attempt}"


async def key_of_request(request: Request, settings: ApiSettings, *, body: bool) -> IdempotencyKey:
    """The idempotency key of a request that has the header; ``body``: it has parameters there.

    Raises:
        BadParameter: the header is repeated, empty, too long, or not ASCII.
        Malformed: the body cannot be decoded.
    """
    key = checked_key(request.headers.getlist(KEY))
    parameters: object = None
    if body:
        decoded = await read_parameters(request, settings.max_body_bytes)
        # White space between the tokens of a JSON value makes no difference.
        values = {
            name: bytes(msgspec.json.format(value, indent=-1)).decode()
            if isinstance(value, msgspec.Raw)
            else value
            for name, value in decoded.values.items()
        }
        parameters = [decoded.form, values]
    return idempotency_key(
        key,
        tenant=settings.tenant,
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        parameters=parameters,
    )


def checked_key(keys: list[str]) -> str:
    """The key in the headers of a request, of which there must be one.

    The whole value of the header, quotes included, is the key.
    """
    if len(keys) > 1:
        raise BadParameter(KEY, "is there more than once")
    [key] = keys
    if _PRINTABLE.fullmatch(key) is None:
        raise BadParameter(KEY, f"expected 1 to {MAX_KEY} printable ASCII characters")
    return key


def idempotency_key(  # noqa: PLR0913 - all that a key depends on
    key: str, *, tenant: str, method: str, path: str, query: str, parameters: Any
) -> IdempotencyKey:
    """The idempotency key made from a client's key and its request."""
    scope = f"{tenant}\n{method} {path}\n{key}".encode()
    return IdempotencyKey(
        scope=hashlib.sha256(scope).hexdigest()[:_HEX_DIGITS],
        digest=hashlib.sha256(_encoder.encode([query, parameters])).hexdigest()[:_HEX_DIGITS],
    )


def key_of_event(causation_id: str) -> IdempotencyKey | None:
    """The key of the request that led to an event; None for an event without one."""
    found = _CAUSATION_ID.fullmatch(causation_id)
    return None if found is None else IdempotencyKey(found[1], found[2])
