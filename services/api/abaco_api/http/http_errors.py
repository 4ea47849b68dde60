"""The HTTP status of each kind of error."""

from abaco_api.access.domain.access_errors import (
    CredentialTooLarge,
    Forbidden,
    Unauthenticated,
)
from abaco_api.api_errors import (
    Behind,
    InboxFull,
    KeyReused,
    QuotaExceeded,
    TimedOut,
    TooLarge,
    TooMany,
    UnsupportedBody,
)
from abaco_proto.errors import AbacoError, Conflict, Malformed, Refused, Unavailable, Unknown

ANSWERS: dict[type[AbacoError], tuple[int, str]] = {
    Unauthenticated: (401, "unauthenticated"),
    Forbidden: (403, "forbidden"),
    QuotaExceeded: (403, "quota_exceeded"),
    CredentialTooLarge: (431, "too_large"),
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
