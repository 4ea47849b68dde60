"""The idempotency key of a request, as it is kept in the log.

The ``Abaco-Causation`` header of an event that a request with a key has led to is
``idem-<scope>-<digest>-<attempt>``. The scope is the tenant, the method, the path and the key of
the client; the digest is of what the request asks for: its query and its parameters. Both are
SHA-256, cut to 128 bits, so the log holds no key in clear. The attempt is random: it tells two
processes apart that execute the same request at the same time.
"""

import hashlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import msgspec

from abaco_proto.envelope import Recorded

PREFIX = "idem-"
_HEX_DIGITS = 32
_encoder = msgspec.json.Encoder(order="sorted")
_DIGEST = rf"[0-9a-f]{{{_HEX_DIGITS}}}"
_CAUSATION_ID = re.compile(rf"{PREFIX}({_DIGEST})-({_DIGEST})-[0-9a-f]{{1,16}}")


class AlreadyExecuted(Exception):
    """A request with this key was executed before; ``recorded`` is the event it led to."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(recorded.id)
        self.recorded = recorded


class IdempotencyKey(msgspec.Struct, frozen=True):
    """The key of one request: where it holds, and what was asked."""

    scope: str
    digest: str

    def causation_id(self, attempt: str) -> str:
        """The causation id of the events of an attempt to execute the request."""
        return f"{PREFIX}{self.scope}-{self.digest}-{attempt}"


def key_of_request(  # noqa: PLR0913 - all that a key depends on
    key: str, *, tenant: str, method: str, path: str, query: str, parameters: Any
) -> IdempotencyKey:
    """The key that a client sent, in its scope."""
    return IdempotencyKey(
        scope=_sha256(f"{tenant}\n{method} {path}\n{key}".encode()),
        digest=_sha256(_encoder.encode([query, parameters])),
    )


def key_of_event(causation_id: str) -> IdempotencyKey | None:
    """The key that led to an event; None for an event without one."""
    found = _CAUSATION_ID.fullmatch(causation_id)
    return None if found is None else IdempotencyKey(found[1], found[2])


_current: ContextVar[IdempotencyKey | None] = ContextVar("idempotency_key", default=None)


def current_key() -> IdempotencyKey | None:
    """The key of the request at hand."""
    return _current.get()


def request_causation_id() -> str:
    """The causation id of the events of the request at hand; one of its own without a key."""
    key = _current.get()
    return f"req-{uuid4()}" if key is None else key.causation_id(uuid4().hex[:8])


@contextmanager
def using(key: IdempotencyKey) -> Generator[None, None, None]:
    """Execute a request with a key inside."""
    token = _current.set(key)
    try:
        yield
    finally:
        _current.reset(token)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HEX_DIGITS]
