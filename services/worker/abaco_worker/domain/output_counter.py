"""Cut an attempt's output into chunks, count it, and truncate it at its limit.

Offsets count recorded bytes from the start of the attempt. After a crash the worker reads the
output again from its beginning. The same bytes then get the same offsets, so nothing is recorded
twice.
"""

import hashlib
from collections.abc import Iterator

import msgspec

CHUNK_BYTES = 16 * 1024


class OutputChunk(msgspec.Struct, frozen=True):
    """Bytes to record, and the number of bytes recorded before them."""

    offset: int
    data: bytes


class OutputCounter:
    """The number and the digest of the bytes of one attempt's output.

    ``read_bytes`` counts what was read, ``recorded_bytes`` what is recorded of it.
    """

    def __init__(self, limit: int) -> None:
        """Record ``limit`` bytes at most, the truncation mark not counted."""
        self._limit = limit
        self._digest = hashlib.sha256()
        self.read_bytes = 0
        self.recorded_bytes = 0
        self.truncated = False

    @property
    def sha256(self) -> str:
        """The digest of the recorded bytes, the truncation mark included; in hex."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> Iterator[OutputChunk]:
        """Count the next bytes, and yield the chunks to record."""
        if self.truncated:
            return
        remaining = self._limit - self.read_bytes
        self.read_bytes += len(data)
        if len(data) > remaining:
            self.truncated = True
            data = data[:remaining] + truncation_mark(self._limit)
        for start in range(0, len(data), CHUNK_BYTES):
            yield self._record(data[start : start + CHUNK_BYTES])

    def _record(self, data: bytes) -> OutputChunk:
        chunk = OutputChunk(self.recorded_bytes, data)
        self._digest.update(data)
        self.recorded_bytes += len(data)
        return chunk


def truncation_mark(limit: int) -> bytes:
    """The last line of output that was truncated."""
    return b"\n[abaco: output truncated at %d bytes]\n" % limit
