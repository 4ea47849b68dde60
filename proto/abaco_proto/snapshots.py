"""The port to snapshots: what a fold of the log has come to, kept so that it can begin there.

A snapshot may be gone, or older than the one that was put last, at any time: whoever gets one must
know how to tell whether it holds, and how to do without.

Adapters: :class:`abaco_proto.jetstream.JetStreamSnapshots` (the real one) and ``tests/fakes.py``
(in memory). Both pass ``tests/contract/snapshots_suite.py``.
"""

from typing import Protocol


class Snapshots(Protocol):
    """The last bytes put under each name, which is a subject token.

    Both methods raise :class:`~abaco_proto.errors.Unavailable` when there is no answer in time, or
    the bytes are more than a message may have.
    """

    async def get(self, name: str) -> bytes | None:
        """What was put last; None when nothing ever was."""
        ...

    async def put(self, name: str, value: bytes) -> None:
        """Put bytes in the place of the last ones: all of them or none."""
        ...
