"""The messages of the stream of container output."""

import msgspec


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of a container's output. ``offset`` counts the bytes of the attempt before it."""

    tenant: str
    actor_id: str
    execution_id: str
    attempt: int
    offset: int
    data: bytes


class RecordedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk in the output stream. ``sequence`` counts over that stream, not the log."""

    sequence: int
    output: Output
