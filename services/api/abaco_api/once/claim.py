"""Claims: what the bucket holds of a key."""

import hashlib
from enum import StrEnum

import msgspec

from abaco_proto.codec import UNREADABLE
from abaco_proto.errors import Unavailable


class State(StrEnum):
    """What others may do about a key."""

    OWNED = "owned"
    """Its maker carries the request out. After a while it may be opened."""
    OPEN = "open"
    """Anybody may carry it out, and must look in the log first."""
    FREE = "free"
    """Nothing came of it, nor will: it may be claimed anew, for another request too."""
    ANSWERED = "answered"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it was given. ``actor_id`` is whom it is about, empty for nobody."""

    status: int
    sequence: int | None
    actor_id: str
    body: msgspec.Raw


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A key in use.

    ``request`` is the digest of what was asked, ``cause`` the causation id of every event that it
    leads to, and ``after`` a sequence that is before all of them.
    """

    request: str
    cause: str
    after: int
    state: State = State.OWNED
    answer: Answer | None = None


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Claim)


def decode(raw: bytes) -> Claim:
    """The claim in a cell.

    Raises:
        Unavailable: it is damaged; what came of the key cannot be told.
    """
    try:
        return _decoder.decode(raw)
    except UNREADABLE as error:
        raise Unavailable(f"Idempotency-Key: its record cannot be read: {error}") from error


def token(tenant: str, key: str) -> str:
    """A key of a tenant, whatever its characters, as a subject token."""
    return hashlib.sha256(f"{tenant}\n{key}".encode()).hexdigest()[:40]
