"""Errors of requests, and the HTTP status of each kind of error."""

from abaco_proto.errors import AbacoError, Conflict, Malformed, Refused, Unavailable, Unknown


class BadParameter(Malformed):
    """A parameter that is missing, unknown, or malformed."""

    def __init__(self, parameter: str, what: str) -> None:
        super().__init__(f"{parameter}: {what}")


class TooLarge(Malformed):
    """More bytes than the limit."""


class BodyTooLarge(TooLarge):
    """A body that was not read to its end: the connection must be closed."""


class TimedOut(Malformed):
    """A body that did not arrive in time: the connection must be closed."""


class UnsupportedBody(Malformed):
    """A body of an unknown content type."""


class UnsupportedCoding(UnsupportedBody):
    """A body with an unknown coding."""


class KeyReused(Refused):
    """An idempotency key that was sent with another request."""


class TooMany(AbacoError):
    """More at once than this process serves."""


class InboxFull(TooMany):
    """An inbox with as many waiting messages as it may have."""


class Behind(Unavailable):
    """The read models do not yet include what this query asks for."""


ANSWERS: dict[type[AbacoError], tuple[int, str]] = {
    TooLarge: (413, "too_large"),
    TimedOut: (408, "timeout"),
    UnsupportedBody: (415, "unsupported_media_type"),
    Malformed: (400, "malformed"),
    Unknown: (404, "unknown"),
    KeyReused: (409, "idempotency_key_reused"),
    Refused: (409, "refused"),
    InboxFull: (429, "inbox_full"),
    TooMany: (429, "too_many"),
    Conflict: (503, "contended"),
    Behind: (503, "behind"),
    Unavailable: (503, "unavailable"),
}
"""HTTP status and slug per class of errors; the nearest base class applies."""


def answer_of(error: AbacoError) -> tuple[int, str]:
    """The HTTP status and the slug of an error."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind]
    return 500, "internal"
