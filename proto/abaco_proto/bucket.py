"""The port to a bucket: small values by key, each replaced only by who has seen the last one.

Adapters: :class:`abaco_proto.jetstream.JetStreamBucket` (the real one) and ``tests/fakes.py`` (in
memory). Both pass ``tests/contract/bucket_suite.py``.
"""

from typing import Protocol

import msgspec


class Cell(msgspec.Struct, frozen=True):
    """A value, and the revision it was written with."""

    revision: int
    value: bytes


class Bucket(Protocol):
    """Values by key, a subject token each. Revisions rise, and are never used again.

    Every method raises :class:`~abaco_proto.errors.Unavailable` when there is no answer in time.
    """

    async def get(self, key: str) -> Cell | None:
        """The value now; None where there is none, or none any more."""
        ...

    async def put(self, key: str, value: bytes, *, revision: int, seconds: int) -> int:
        """Replace the value written with ``revision`` (0: there is none), and keep it so long.

        Returns its revision.

        Raises:
            Conflict: there is another value now.
            Unavailable: no answer in time; the value may or may not be there.
        """
        ...
