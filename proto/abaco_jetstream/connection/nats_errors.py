"""Errors of nats-py and of JetStream, and their translation into those of the contract."""

import asyncio
from typing import Any

import nats.errors
import nats.js.errors

from abaco_proto.errors import Conflict, Unavailable

NATS_ERRORS = (nats.errors.Error, nats.js.errors.Error, OSError, asyncio.TimeoutError)
"""Everything that a call of nats-py raises."""

NOT_SENT_ERRORS = (nats.errors.MaxPayloadError, nats.errors.BadSubjectError)
"""Raised by nats-py before anything is sent: they say nothing about the server."""

WRONG_LAST_SEQUENCE = 10071
RETRYABLE_CODES = frozenset(
    {
        10008,  # no leader now
        10009,  # no longer the leader
        10158,  # an event with this id is being replicated
        10164,  # an event with the same condition is being replicated
    }
)
"""JetStream error codes after which nothing was stored, and the same request may soon succeed."""


class NotSent(Unavailable):
    """A request that was not sent: it is too large, or its subject is invalid."""


class RetryableError(Exception):
    """Nothing was stored, and the same request may soon succeed."""


RETRYABLE_ERRORS = (
    RetryableError,
    nats.errors.NoRespondersError,
    nats.js.errors.ServiceUnavailableError,
)


def checked(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply of JetStream, if it is not an error.

    Raises:
        Conflict: an expected last sequence did not match.
        RetryableError: the code is one of ``RETRYABLE_CODES``.
        Unavailable: any other error.
    """
    error = reply.get("error")
    if error is None:
        return reply
    description = error.get("description", str(error))
    if error.get("err_code") == WRONG_LAST_SEQUENCE:
        raise Conflict(description)
    if error.get("err_code") in RETRYABLE_CODES:
        raise RetryableError(description)
    raise Unavailable(f"the log (NATS) refused: {description}")


def describe(error: BaseException) -> str:
    """The text of an error, or its type's name: many errors of nats-py have no text."""
    return str(error) or type(error).__name__
