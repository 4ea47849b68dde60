"""The errors of the api: what can be wrong with a request, or keeps it from being served."""

from abaco_proto.errors import AbacoError, Malformed, Refused, Unavailable


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


class QuotaExceeded(AbacoError):
    """A tenant that has as much of something as it may have."""


class Behind(Unavailable):
    """The read models do not yet include what this query asks for."""
