"""Which bytes of a container's output are recorded, and where: pure counting and cutting.

Offsets count recorded bytes from the start of the attempt. A container's output is read from its
beginning again after a crash; the same bytes then get the same offsets, and nothing is doubled.
"""

import hashlib
from collections.abc import Iterator

import msgspec

CHUNK_BYTES = 16 * 1024


class Chunk(msgspec.Struct, frozen=True):
    """Bytes to record, and how many were recorded before them."""

    offset: int
    data: bytes


class Tally:
    """What of one attempt's output was taken, and what is recorded of it."""

    def __init__(self, limit: int) -> None:
        """``limit`` is how many bytes are recorded, the mark that more was cut off not counted."""
        self._limit = limit
        self._digest = hashlib.sha256()
        self.taken = 0
        self.recorded = 0
        self.truncated = False

    @property
    def sha256(self) -> str:
        """Over the recorded bytes, mark included; in hex."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> Iterator[Chunk]:
        """Take the next bytes; gives what is to be recorded, in chunks."""
        if self.truncated:
            return
        room = self._limit - self.taken
        self.taken += len(data)
        if len(data) > room:
            self.truncated = True
            data = data[:room] + truncation_mark(self._limit)
        for start in range(0, len(data), CHUNK_BYTES):
            yield self._record(data[start : start + CHUNK_BYTES])

    def _record(self, data: bytes) -> Chunk:
        chunk = Chunk(self.recorded, data)
        self._digest.update(data)
        self.recorded += len(data)
        return chunk


def truncation_mark(limit: int) -> bytes:
    """The line at the end of output that was cut off."""
    return b"\n[abaco: output truncated at %d bytes]\n" % limit
