"""Output chunks as rows: each byte of an attempt once, however the output was divided.

A worker that restarts sends the output of its runs again from the beginning, perhaps divided
otherwise. So only the bytes after the stored ones are added. A chunk after a gap (the stream drops
old chunks) is stored at its own offset.
"""

from collections.abc import Iterable, Mapping

import msgspec

from abaco_proto.output import Output

OutputKey = tuple[str, str, int]
"""Tenant, execution id and attempt."""


class Chunk(msgspec.Struct, frozen=True):
    """One row of the table ``logs``."""

    tenant: str
    execution_id: str
    attempt: int
    output_offset: int
    data: bytes


def key_of(output: Output) -> OutputKey:
    """Return the attempt that wrote this output."""
    return output.tenant, output.execution_id, output.attempt


def chunks(ends: Mapping[OutputKey, int], outputs: Iterable[Output]) -> list[Chunk]:
    """Return the rows that ``outputs`` add; ``ends`` are the ends of the stored output, in
    bytes.
    """
    reached = dict(ends)
    rows = []
    for output in outputs:
        key = key_of(output)
        start = max(output.offset, reached.get(key, 0))
        data = output.data[start - output.offset :]
        if data:
            reached[key] = start + len(data)
            rows.append(Chunk(*key, start, data))
    return rows
