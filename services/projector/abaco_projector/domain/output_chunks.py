"""Output chunks as rows: every byte of an attempt once, whatever the borders it came in.

A worker that starts again sends the output of what it runs from the beginning, and may cut it
elsewhere. So a chunk gives only the bytes beyond what is stored. A chunk beyond a gap (the stream
forgets by age and size) stands at its own offset.
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
    """Whose output this is."""
    return output.tenant, output.execution_id, output.attempt


def chunks(ends: Mapping[OutputKey, int], outputs: Iterable[Output]) -> list[Chunk]:
    """The rows that ``outputs`` add to what is stored, which reaches up to ``ends`` (in bytes)."""
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
